"""Hypothesis strategies that write init programs."""

from dataclasses import dataclass, field

from hypothesis import strategies as st

from tests.fuzz import operations as ops
from tests.fuzz.program import Function, Keep, Let, Part, Program

BATCHED = ("ParamState", "ShortTermState", "LongTermState", "HiddenState", "brainstate.BatchState")
SETTINGS = ("jax.enable_x64(True)", "brainstate.environ.context(precision='bf16')", "jax.threefry_partitionable(False)")


@dataclass(frozen=True, slots=True)
class Value:
    code: str
    kind: str
    shape: ops.Shape
    by_lane: bool


@dataclass(slots=True)
class Scope:
    """What the init under construction can refer to."""

    values: list[Value] = field(default_factory=list)
    lines: list[Let | Keep | str] = field(default_factory=list)
    ranks: dict[str, int] = field(default_factory=dict)  # State class -> least rank of its leaves
    functions: list[Function] = field(default_factory=list)
    states: int = 0

    def let(self, code: str, kind: str, shape: ops.Shape, by_lane: bool) -> Value:
        value = Value(f"x{sum(isinstance(line, Let) for line in self.lines)}", kind, shape, by_lane)
        self.lines.append(Let(value.code, code))
        self.values.append(value)
        return value


@st.composite
def functions(draw, scope: Scope) -> str:
    """Name of a new function of one array."""
    steps = draw(st.lists(st.sampled_from(ops.ELEMENTWISE), min_size=1, max_size=2))
    name = f"f{len(scope.functions)}"
    scope.functions.append(Function(name, tuple(step.replace("{0}", "v") for step in steps)))
    return name


@st.composite
def draws(draw, scope: Scope) -> None:
    """A draw from brainstate's generator, or from a key that is there."""
    shape = draw(st.sampled_from(ops.SHAPES))
    keys = [v for v in scope.values if v.kind == "k"]
    how = draw(st.sampled_from(("float", "float", "integer", "vector", "key") + ("keyed",) * (3 * bool(keys))))
    if how == "key":
        scope.let("R.split_key()", "k", (), True)
    elif how == "vector":
        code, kind, shape = draw(st.sampled_from(ops.VECTOR_DRAWS))
        scope.let(f"R.{code}", kind, shape, True)
    elif how == "keyed":
        key = draw(st.sampled_from(keys))
        plain = [(c, "f", shape) for c in ops.KEYED] + [(c, "i", shape) for c in ops.KEYED_INTEGERS]
        code, kind, shape = draw(st.sampled_from((*plain, *ops.KEYED_VECTORS)))
        scope.let("jax.random." + code.format(key.code, S=shape), kind, shape, key.by_lane)
    else:
        codes, kind = (ops.FLOAT_DRAWS, "f") if how == "float" else (ops.INTEGER_DRAWS, "i")
        scope.let("R." + draw(st.sampled_from(codes)).format(S=shape), kind, shape, True)


@st.composite
def calls(draw, scope: Scope) -> None:
    """A function under jit, vmap, scan, cond and the like."""
    values = [v for v in scope.values if v.kind == "f"]
    if values:
        value = draw(st.sampled_from(values))
        code = draw(st.sampled_from(ops.CALLS + ops.VECTOR_CALLS * bool(value.shape)))
        f, g = draw(functions(scope)), draw(functions(scope)) if "{G}" in code else ""
        scope.let(code.format(value.code, F=f, G=g), "f", value.shape, value.by_lane)


@st.composite
def applications(draw, scope: Scope) -> None:
    """An operation on values that are there."""
    kinds = {v.kind for v in scope.values}
    fitting = [o for o in ops.OPERATIONS if set(o.takes) <= kinds]
    if fitting:
        operation = draw(st.sampled_from(fitting))
        values = [draw(st.sampled_from([v for v in scope.values if v.kind == kind])) for kind in operation.takes]
        shape = operation.shape(*(v.shape for v in values))
        if shape is not None:
            code = operation.code.format(*(v.code for v in values))
            scope.let(code, operation.gives, shape, any(v.by_lane for v in values))


@st.composite
def shared(draw, scope: Scope) -> None:
    scope.let(*draw(st.sampled_from(ops.SHARED)), False)


@st.composite
def kept(draw, scope: Scope) -> None:
    """A state, and a value that reads it; or an attribute."""
    recent = scope.values[-4:]
    if not recent:
        return
    value = draw(st.sampled_from(recent))
    name, form = f"s{scope.states}", draw(st.sampled_from(("plain",) * 5 + ("tree", "constant", "attribute", "shared")))
    scope.states += 1
    state_class = draw(st.sampled_from(BATCHED))
    tag = draw(st.sampled_from((None, None, "tagged")))
    if form == "attribute" and not value.by_lane:
        scope.lines.append(Keep(name, None, value.code))
        return
    if form == "shared" and not value.by_lane:
        state_class = "NonBatchState"
    code, rank = value.code, len(value.shape)
    if form == "tree":
        other = draw(st.sampled_from(recent))
        code, rank = f"{{'a': {value.code}, 'b': ({other.code}, 3, None)}}", 0
    elif form == "constant":
        state_class = "ShortTermState"  # the others want arrays
        code, rank = draw(st.sampled_from(ops.VALUES)), 0
    scope.lines.append(Keep(name, state_class, code, tag))
    scope.ranks[state_class] = min(scope.ranks.get(state_class, 9), rank)
    if form == "plain":
        scope.values.append(Value(f"self.{name}.value", value.kind, value.shape, value.by_lane))


STEPS = (draws, draws, calls, applications, applications, shared, kept)


@st.composite
def bodies(draw, scope: Scope, most: int) -> None:
    draw(draws(scope))
    for step in draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=most)):
        draw(step(scope))
    draw(kept(scope))


@st.composite
def axes(draw, ranks: dict[str, int]) -> str:
    """Filters of out axes that every leaf has."""
    usable = [c for c in ranks if c != "NonBatchState"]
    if not usable or not draw(st.booleans()):
        return "None"
    state_class = draw(st.sampled_from(usable))
    below = [c for c in ranks if c not in ("NonBatchState",)]
    related = {"ShortTermState": ("HiddenState",), "LongTermState": ("ParamState", "brainstate.BatchState")}
    rank = min(ranks[c] for c in (state_class, *related.get(state_class, ())) if c in below)
    axis = draw(st.sampled_from(range(-rank - 1, rank + 1)))
    return f"{{{axis}: {state_class}}}"


@st.composite
def programs(
    draw, most: int = 6, sizes: tuple[int, ...] = (8, 8, 6, 3), settings: tuple[str, ...] = SETTINGS
) -> Program:
    """An init program of one to three modules."""
    inner, outer = Scope(), Scope()
    parts = []
    constructor: list[str] = []
    if draw(st.integers(0, 2)) == 0:
        draw(bodies(inner, 2))
        parts.append(Part("Inner", (), tuple(inner.lines)))
        constructor.append(draw(st.sampled_from(("self.inner = Inner()", "self.inner = [Inner(), Inner()][0]"))))
        if draw(st.booleans()):
            constructor.append("self.again = self.inner")
        outer.functions = inner.functions
        outer.values += [
            Value(f"self.inner.{v.code.removeprefix('self.')}", v.kind, v.shape, v.by_lane)
            for v in inner.values
            if v.code.startswith("self.")
        ]
    if draw(st.integers(0, 3)) == 0:
        constructor.append("self.before = ParamState(jnp.arange(3.0) * 0.7)")
        outer.values.append(Value("self.before.value", "f", (3,), False))
    if draw(st.integers(0, 3)) == 0:
        constructor.append("self.held = np.array([0.1, 0.2, 0.3], np.float32)")
        outer.values.append(Value("jnp.asarray(self.held)", "f", (3,), False))
    if draw(st.integers(0, 5)) == 0:
        constructor.append("self.rng = R.RandomState(3)")
        outer.let("self.rng.normal(size=(3,))", "f", (3,), True)
    draw(bodies(outer, most))
    parts.append(Part("Outer", tuple(constructor), tuple(outer.lines), order=2))
    ranks = dict(outer.ranks)
    for state_class, rank in inner.ranks.items():
        ranks[state_class] = min(rank, ranks.get(state_class, 9))
    return Program(
        tuple(outer.functions),
        tuple(parts),
        draw(st.sampled_from(sizes)),
        draw(axes(ranks)),
        draw(st.sampled_from((None, None, "new"))),
        draw(st.sampled_from(("contextlib.nullcontext()",) * 12 + settings)),
    )
