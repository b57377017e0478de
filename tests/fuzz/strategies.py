"""Hypothesis strategies that write init programs."""

import re
from dataclasses import dataclass, field

import brainstate
from hypothesis import strategies as st

from tests.fuzz.operations import Shape
from tests.fuzz.program import Function, Keep, Let, Part, Program
from tests.fuzz.vocabulary import Vocabulary, whole


class Own(brainstate.HiddenState):
    """As in programs."""


CLASSES = {
    "ParamState": brainstate.ParamState,
    "ShortTermState": brainstate.ShortTermState,
    "LongTermState": brainstate.LongTermState,
    "HiddenState": brainstate.HiddenState,
    "brainstate.BatchState": brainstate.BatchState,
    "Own": Own,
}
SETTINGS = (
    "jax.enable_x64(True)",
    "brainstate.environ.context(precision='bf16')",
    "brainstate.environ.context(precision=16)",
    "jax.threefry_partitionable(False)",
    "jax.default_matmul_precision('highest')",
    "jax.debug_key_reuse(False)",
)
PLAIN = "contextlib.nullcontext()"


@dataclass(frozen=True, slots=True)
class Value:
    """Code of a value of one lane, and whether it differs by lane."""

    code: str
    kind: str
    shape: Shape
    by_lane: bool


@dataclass(frozen=True, slots=True)
class Made:
    """A state that the program makes, for the filters of the out axes."""

    name: str
    state_class: str
    tag: str | None
    rank: int  # the least of its leaves'
    by_lane: bool


@dataclass(slots=True)
class Scope:
    """What the init under construction can refer to."""

    words: Vocabulary
    values: list[Value] = field(default_factory=list)
    lines: list[Let | Keep | str] = field(default_factory=list)
    made: list[Made] = field(default_factory=list)
    functions: list[Function] = field(default_factory=list)
    attributes: int = 0

    def let(self, code: str, kind: str, shape: Shape, by_lane: bool) -> Value:
        value = Value(f"x{sum(isinstance(line, Let) for line in self.lines)}", kind, shape, by_lane)
        self.lines.append(Let(value.code, code))
        self.values.append(value)
        return value

    def name(self) -> str:
        self.attributes += 1
        return f"s{self.attributes - 1}"

    def of_kind(self, kind: str) -> list[Value]:
        return [v for v in self.values if v.kind == kind]


@st.composite
def functions(draw, scope: Scope) -> str:
    """Name of a new function of one array."""
    steps = draw(st.lists(st.sampled_from(scope.words.elementwise), min_size=1, max_size=2))
    name = f"f{len(scope.functions)}"
    scope.functions.append(Function(name, tuple(step.replace("{0}", "v") for step in steps)))
    return name


@st.composite
def draws(draw, scope: Scope) -> None:
    """A draw from brainstate's generator, or from a key that is there."""
    shape, words = draw(st.sampled_from(scope.words.shapes)), scope.words
    keys = scope.of_kind("k")
    how = draw(st.sampled_from("ffffiibo" + "kki" * bool(keys)))
    if keys and draw(st.booleans()):
        key = draw(st.sampled_from(keys))
        code, kind, shape = _sampler(draw, how, shape, words.keyed, words.keyed_integers, (), words.keyed_others)
        scope.let(code.format(key.code, S=shape), kind, shape, key.by_lane)
    else:
        code, kind, shape = _sampler(draw, how, shape, words.floats, words.integers, words.booleans, words.others)
        scope.let(code.format(S=shape), kind, shape, True)


def _sampler(draw, how, shape, floats, integers, booleans, others) -> tuple[str, str, Shape]:
    lines = {"f": floats, "i": integers, "b": booleans}.get(how)
    return (draw(st.sampled_from(lines)), how, shape) if lines else draw(st.sampled_from(others))


@st.composite
def calls(draw, scope: Scope) -> None:
    """A function under jit, vmap, scan, cond and the like."""
    values = scope.of_kind("f")
    if not values:
        return
    value = draw(st.sampled_from(values))
    others = [v for v in values if v.shape == value.shape]
    words = scope.words
    code = draw(st.sampled_from(words.calls + words.pair_calls + words.vector_calls * bool(value.shape)))
    other = draw(st.sampled_from(others)) if "{1}" in code else value
    f, g = draw(functions(scope)), draw(functions(scope)) if "{G}" in code else ""
    scope.let(code.format(value.code, other.code, F=f, G=g), "f", value.shape, value.by_lane or other.by_lane)


@st.composite
def applications(draw, scope: Scope) -> None:
    """An operation on values that are there."""
    kinds = {v.kind for v in scope.values}
    operation = draw(st.sampled_from([o for o in scope.words.operations if set(o.takes) <= kinds] or [None]))
    if operation is None:
        return
    values = [draw(st.sampled_from(scope.of_kind(kind))) for kind in operation.takes]
    shape = operation.shape(*(v.shape for v in values))
    if shape is not None:
        code = operation.code.format(*(v.code for v in values))
        scope.let(code, operation.gives, shape, operation.draws or any(v.by_lane for v in values))


@st.composite
def shared(draw, scope: Scope) -> None:
    scope.let(*draw(st.sampled_from(scope.words.shared)), False)


OF_ARRAYS = ("HiddenState", "Own")  # they take no other pytrees
FORMS = ("plain",) * 5 + ("dict", "pair", "record", "constant", "attribute", "shared", "drawn")


@st.composite
def kept(draw, scope: Scope) -> None:
    """A state, or an attribute outside of any."""
    recent = scope.values[-4:]
    if not recent:
        return
    value, other = draw(st.sampled_from(recent)), draw(st.sampled_from(recent))
    form = draw(
        st.sampled_from(("plain",) * 5 + ("dict", "pair", "record", "constant", "attribute", "shared", "drawn"))
    )
    if form in ("attribute", "drawn") and value.kind != "q" and (form == "drawn" or not value.by_lane):
        scope.lines.append(Keep(scope.name(), None, value.code))
        return
    tree = form in ("dict", "pair", "record")
    state_class = draw(st.sampled_from([c for c in CLASSES if not (tree and c in OF_ARRAYS)]))
    tag = draw(st.sampled_from((None, None, "tagged")))
    code, rank, by_lane = value.code, len(value.shape), value.by_lane
    if form == "dict":
        code, rank, by_lane = f"{{'a': {value.code}, 'b': [{other.code}, 3, None]}}", 0, value.by_lane or other.by_lane
    elif form == "pair":
        code, rank = f"Pair({value.code}, {other.code})", min(rank, len(other.shape))
        by_lane = value.by_lane or other.by_lane
    elif form == "record":
        code = f"Record({value.code}, 'label')"
    elif form == "constant":
        state_class = "ShortTermState"  # the others want arrays
        code, rank, by_lane = draw(st.sampled_from(scope.words.values)), 0, False
    if form == "shared" and not by_lane:
        state_class = "NonBatchState"
    name = scope.name()
    scope.lines.append(Keep(name, state_class, code, tag))
    scope.made.append(Made(name, state_class, tag, rank, by_lane))
    if form == "plain":
        scope.values.append(Value(f"self.{name}.value", value.kind, value.shape, by_lane))


@st.composite
def rewritten(draw, scope: Scope) -> None:
    """A state of this init gets another value, or a second name."""
    states = [v for v in scope.values if v.code.startswith("self.s") and v.kind == "f"]
    if not states:
        return
    state = draw(st.sampled_from(states))
    attribute = state.code.removesuffix(".value")
    if draw(st.booleans()):
        scope.lines.append(f"self.{scope.name()} = {attribute}")
    elif state.by_lane:
        other = draw(st.sampled_from([v for v in scope.of_kind("f") if v.shape == state.shape]))
        scope.lines.append(f"{state.code} = {state.code} * 0.5 + {other.code}")


STEPS = (draws, draws, calls, applications, applications, applications, shared, kept, rewritten)


@st.composite
def bodies(draw, scope: Scope, most: int) -> None:
    draw(draws(scope))
    for step in draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=most)):
        draw(step(scope))
    draw(kept(scope))


def _matching(made: list[Made], code: str) -> list[Made]:
    """States that a filter takes."""
    if code == "...":
        return made
    if code == "'tagged'":
        return [m for m in made if m.tag]
    wanted = tuple(cls for name, cls in CLASSES.items() if re.search(rf"\b{name}\b", code))
    return [m for m in made if m.state_class in CLASSES and issubclass(CLASSES[m.state_class], wanted)]


FILTERS = (
    *CLASSES,
    "'tagged'",
    "lambda path, state: isinstance(state, ParamState)",
    "...",
    "(ParamState, ShortTermState)",
    "brainstate.util.filter.Any(ParamState, ShortTermState)",
)


@st.composite
def axes(draw, made: list[Made]) -> str:
    """Filters of out axes that every leaf has, and that no state fits two of."""
    found: dict[int | None, str] = {}
    taken: set[int] = set()
    batched = [m for m in made if m.state_class != "NonBatchState"]
    for _ in range(draw(st.sampled_from((0, 0, 1, 1, 2)))):
        code = draw(st.sampled_from(FILTERS))
        states = _matching(made, code)
        if not states or len(states) > len(_matching(batched, code)) or taken.intersection(map(id, states)):
            continue
        rank = min(m.rank for m in states)
        none_too = [] if any(m.by_lane for m in states) else [None]
        axis = draw(st.sampled_from([*range(-rank - 1, rank + 1), *none_too]))
        if axis not in found:
            found[axis] = code
            taken.update(map(id, states))
    pairs = ", ".join(f"{axis}: {code}" for axis, code in found.items())
    return f"{{{pairs}}}" if found else "None"


@st.composite
def outside(draw, scope: Scope) -> list[str]:
    """Lines of a constructor, for what exists before init."""
    lines = []
    if draw(st.integers(0, 3)) == 0:
        lines.append("self.before = ParamState(jnp.arange(3.0) * 0.7)")
        scope.values.append(Value("self.before.value", "f", (3,), False))
    if draw(st.integers(0, 3)) == 0:
        lines.append("self.held = np.array([0.1, 0.2, 0.3], np.float32)")
        scope.values.append(Value("jnp.asarray(self.held)", "f", (3,), False))
    if draw(st.integers(0, 4)) == 0:
        lines.append("self.array = jnp.arange(3.0) * 1.7")
        scope.values.append(Value("self.array", "f", (3,), False))
    if draw(st.integers(0, 5)) == 0:
        lines.append("self.rng = R.RandomState(3)")
        scope.let("self.rng.normal(size=(3,))", "f", (3,), True)
    return lines


MODULES = (
    "self.inner = Inner()",
    "self.inner = Inner(); self.again = self.inner",
    "self.inner = Inner(); self.more = [Inner(), Inner()]",
    "self.inner = Inner(); self.more = {'a': Inner()}; self.again = self.more['a']",
)


@st.composite
def programs(
    draw,
    most: int = 8,
    sizes: tuple[int, ...] = (8, 8, 8, 6, 12, 3),
    settings: tuple[str, ...] = SETTINGS,
    words: Vocabulary | None = None,
) -> Program:
    """An init program of one to four modules."""
    inner, outer = (Scope(words or whole()) for _ in range(2))
    parts, constructor = [], []
    if draw(st.integers(0, 2)) == 0:
        draw(bodies(inner, 3))
        parts.append(Part("Inner", (), tuple(inner.lines)))
        constructor += draw(st.sampled_from(MODULES)).split("; ")
        outer.functions = inner.functions
        own = [v for v in inner.values if v.code.startswith("self.")]
        outer.values += [Value(f"self.inner.{v.code[5:]}", v.kind, v.shape, v.by_lane) for v in own]
    constructor += draw(outside(outer))
    draw(bodies(outer, most))
    parts.append(Part("Outer", tuple(constructor), tuple(outer.lines), order=2))
    return Program(
        tuple(outer.functions),
        tuple(parts),
        draw(st.sampled_from(sizes)),
        draw(axes([*inner.made, *outer.made])),
        draw(st.sampled_from((None, None, "new"))),
        draw(st.sampled_from((PLAIN,) * 24 + settings)),
    )
