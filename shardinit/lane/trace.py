"""A trace of one lane's init: abstract throughout, concrete where the init code insists.

JAX's own abstract trace refuses ``np.asarray``, ``int`` or a Python branch on everything it has seen,
also on what every lane shares, which is concrete when brainstate maps the init eagerly. ``LaneTrace``
keeps one bit per value, whether it depends on the lane, and evaluates a lane-independent value on
demand, from its own slice of the trace. Nothing else is ever computed here.
"""

import math
import sys
import types
from collections import Counter
from dataclasses import dataclass
from typing import Any

import jax

from shardinit.backend.ambient import without_mesh
from shardinit.backend.jax_errors import ConcreteValueError
from shardinit.backend.private_jax import ARRAY, CONCRETE, AbstractRef, Trace, acts, set_current_trace, settings
from shardinit.errors import DeletedArrayError, LaneValueError
from shardinit.lane.closed_over import bytes_inside, opened, size_of
from shardinit.lane.equations import (
    UNKNOWN,
    Atom,
    Equation,
    Variable,
    as_atom,
    equations_in,
    evaluate,
    jaxprs_of,
    name_of,
    primitive_names,
    staged,
)
from shardinit.lane.frames import user_line
from shardinit.lane.lifted import Effect, lift_effects
from shardinit.lane.placements import CONSTRAINTS, asks_for_placement, is_under_mesh, no_abstract_mesh, unplaced, wishes
from shardinit.lane.primitives import (
    COLLECTIVES,
    OPENED_BY_LANE,
    UNIFORM_COLLECTIVES,
    calls_back,
    loses_lanes,
    takes_lanes_together,
)
from shardinit.lane.sizes import check_sizes
from shardinit.lane.stand_in import StandIn

SMALL = 64  # elements
RANDOM = frozenset({"threefry2x32", "rng_bit_generator"})


@dataclass(slots=True)
class Wish:
    """A placement that init asks for: mesh axis or None per axis (else empty), and whether a state came to hold it."""

    axes: tuple[str | None, ...] = ()
    of_state: bool = False


class LaneTracer(StandIn):
    """A value of one lane; behaves as a concrete array if it does not depend on the lane."""

    __slots__ = ("atom", "wish")

    def __init__(self, trace: "LaneTrace", atom: Atom) -> None:
        StandIn.__init__(self, trace, atom.aval)
        self.atom = atom
        self.wish: Wish | None = None

    def to_concrete_value(self) -> Any:
        """Give JAX the value where its code cannot go on without it, None where it only asks.

        JAX uses one method for both. It cannot go on in ``concrete_or_error``; of the places that only ask, those
        about integers and masks choose another algorithm (``x ** n``, static indices, ``x[mask]``), so they must see
        what eager code sees, while ``jnp.array`` would only copy.
        """
        callers = _caller_names(3)
        must = callers[0] == CONCRETE
        if self.atom.on_axis:
            return self.concrete("a JAX function that computes on the host") if must else None
        kind = getattr(self.dtype, "kind", "of keys")
        chooses = kind == "b" or (self.shape == () and kind in "iu")
        if must or (chooses and ARRAY not in callers):
            return self._trace.concrete(self)
        return None

    def full_lower(self) -> Any:
        """Once the trace is over, stand for the value: a cache outside the module may have kept this."""
        return self._trace.concrete(self) if self._trace.is_over and not self.atom.on_axis else self

    @property
    def is_shared(self) -> bool:
        return not self.atom.on_axis

    def concrete(self, what: str) -> jax.Array:
        if self.atom.on_axis:
            raise ConcreteValueError(
                f"init code needs the concrete value of {self.aval.str_short()}, which differs by lane, "
                f"for {what} at {user_line()}. Use jnp and lax functions (jnp.where, lax.cond, .at[]) "
                "there instead, or derive the value from something that all lanes share."
            )
        return self._trace.concrete(self)

    def is_deleted(self) -> Any:
        return self.atom in self._deletions("is_deleted()")

    def delete(self) -> None:
        self._deletions("delete()").add(self.atom)

    def _deletions(self, what: str) -> set[Atom]:
        if not self.is_shared:
            self.concrete(what)  # raises
        return self._trace.deleted

    def _short_repr(self) -> Any:
        return f"LaneTracer({self.aval.str_short()})"

    def _error_repr(self) -> Any:
        return f"a value of one lane, {self.aval.str_short()}"


class LaneTrace(Trace):
    """Records one lane's init as equations.

    Parameters
    ----------
    outer
        The trace that was current before, to evaluate lane-independent values under.
    axis_name
        Name of the mapped axis for collectives, if there is one.
    """

    __slots__ = (
        *("asked", "axis_name", "concretized", "deleted", "effectful", "inside", "is_over", "last_settings"),
        *("outer", "placements", "serial", "values"),
    )

    def __init__(self, outer: Trace, axis_name: Any = None) -> None:
        super().__init__()
        self.outer = outer
        self.axis_name = axis_name
        self.is_over = False
        self.last_settings = settings()
        self.serial = 0
        self.deleted: set[Atom] = set()
        self.asked = 0
        self.effectful: list[Equation] = []  # everything else lives as long as something needs it
        self.inside: Counter[str] = Counter()  # user's line -> bytes of arrays in the programs of a jit there
        self.placements: dict[str, list[Wish]] = {}  # by the user's line
        self.concretized: dict[str, int] = {}  # user's line -> bytes evaluated there
        self.values: dict[Variable, Any] = {}

    def new_input(self, aval: Any, random_index: int) -> LaneTracer:
        """Make an input of the program: the lane key of a random state."""
        return LaneTracer(self, Variable(aval, random_index=random_index, by_lane=True, on_axis=True))

    def atom(self, value: Any) -> Atom:
        if isinstance(value, LaneTracer):
            if value._trace is self:
                return self._kept(value)
            value = value.full_lower()
        if isinstance(value, jax.Array) and value.is_deleted():
            raise DeletedArrayError(
                f"init code uses an array that was deleted, {jax.typeof(value).str_short()}, at {user_line()}. "
                "Use a copy that was made before."
            )
        return as_atom(value)

    def _kept(self, tracer: LaneTracer) -> Atom:
        if tracer.atom in self.deleted:
            raise DeletedArrayError(
                f"init code uses an array that it deleted, {tracer.aval.str_short()}, at {user_line()}. "
                "Leave out the call of delete(), or use a copy made before."
            )
        return tracer.atom

    def concrete(self, tracer: LaneTracer, place: str | None = None) -> jax.Array:
        atom = self._kept(tracer)
        with set_current_trace(self.outer), without_mesh():
            if isinstance(atom, Variable) and atom not in self.values:
                # Keep this value and small ones on the way to it, which may hold far larger arrays.
                known = dict(self.values)
                (value,) = evaluate([atom], known)
                self._keep_asked(known)
                small = {v: x for v, x in known.items() if math.prod(v.aval.shape) <= SMALL}
                self.values = small | {atom: value} | self.values
                line = place or user_line()
                self.concretized[line] = self.concretized.get(line, 0) + size_of(atom.aval)
            if isinstance(atom, Variable):
                return self.values[atom]
            is_scalar = isinstance(atom.value, (bool, int, float, complex))  # as JAX keeps those of code, on jax 0.10
            return jax.numpy.asarray(atom.value) if is_scalar else atom.value

    def _keep_asked(self, known: dict[Variable, Any]) -> None:
        """Let what the host was asked for stay what it said: it must not be asked again."""
        asked = {v.equation.serial: v.equation for v in known if v.equation and calls_back(v.equation) != "no"}
        for equation in asked.values():
            for variable in equation.outputs:
                self.asked += 1
                answer = as_atom(known[variable])
                variable.equation = Equation(
                    jax.lax.copy_p, {}, [answer], [variable], frozenset(), -self.asked, equation.settings
                )
        self.effectful = [e for e in self.effectful if e.serial not in asked]

    def settings(self) -> Any:
        """Settings at this line: one object as long as they stay, so that equations are quick to compare."""
        here = settings()
        if here != self.last_settings:
            self.last_settings = here
        return self.last_settings

    def process_primitive(self, primitive: Any, tracers: Any, params: Any, /) -> Any:
        name = name_of(primitive)
        if name in OPENED_BY_LANE:  # a call, whatever JAX makes of it
            with set_current_trace(self):
                return primitive.impl(*tracers, **params)
        asks = asks_for_placement(primitive, params)
        if asks and name in CONSTRAINTS:
            constrained = LaneTracer(self, self.stage_value(tracers[0]).atom)
            wanted = wishes(primitive, params, 1)
            if name != "reshard" or any(wanted):  # JAX's own way to a type that is not split
                self._wish([constrained], wanted)
            return constrained
        pure, lifted = lift_effects(primitive, params)
        if lifted:
            return self._with_effects(primitive, tracers, pure, lifted)[: len(params["jaxpr"].out_avals)]
        inputs = [self.atom(t) for t in tracers]
        asked = params
        if asks or is_under_mesh():
            params = unplaced(params)
        if name == "jit":
            params, closed_over = opened(params)
            inputs += closed_over
            if size := bytes_inside(params):
                self.inside[user_line()] += size
        out = [LaneTracer(self, v) for v in self._record(primitive, params, inputs).outputs]
        if asks:
            self._wish(out, wishes(primitive, asked, len(out)))
        return out if primitive.multiple_results else out[0]

    def _record(self, primitive: Any, params: dict[str, Any], inputs: list[Atom]) -> Equation:
        """Add an equation, with what is known of its outputs."""
        with no_abstract_mesh():
            avals, effects = primitive.abstract_eval(*(a.aval for a in inputs), **params)
        avals = avals if primitive.multiple_results else [avals]
        around = [*(a.aval for a in inputs), *avals]
        if _uses_mutable(primitive, params, around):
            raise LaneValueError(
                f"init code uses a mutable array (jax.new_ref) at {user_line()}, outside of any jit. Put what uses it "
                "into one function under jax.jit, or use x.at[...].set(...)."
            )
        check_sizes(avals, params)
        collective = self.axis_name is not None and not COLLECTIVES.isdisjoint(primitive_names(primitive, params))
        on_axis = collective or any(a.on_axis for a in inputs)
        uniform = name_of(primitive) in UNIFORM_COLLECTIVES and params.get("axis_index_groups") is None
        by_lane = not uniform and (collective or any(a.by_lane for a in inputs))
        random = any(a.random for a in inputs) or draws(primitive, params)
        acting = frozenset(e for e in effects if acts([e]))
        self.serial += 1
        together = on_axis and takes_lanes_together(primitive, params, around)
        equation = Equation(primitive, params, inputs, [], acting, self.serial, self.settings(), together)
        equation.outputs = [Variable(aval, equation, None, by_lane, on_axis, random) for aval in avals]
        for variable in equation.outputs:
            variable.lost_lanes = loses_lanes(primitive, inputs)
        if acting:
            self.effectful.append(equation)
        return equation

    def _wish(self, made: list[LaneTracer], wanted: list[tuple[str | None, ...]]) -> None:
        """Remember what init wants of the placement of values, and where it says so."""
        asked = []
        for tracer, axes in zip(made, wanted, strict=True):
            if axes:
                tracer.wish = Wish(axes)
                asked.append(tracer.wish)
        self.placements.setdefault(user_line(), []).extend(asked or [Wish()])

    def _with_effects(self, primitive: Any, tracers: Any, params: Any, lifted: list[Effect]) -> Any:
        """Record a ``jit`` without its effects, then these, of what it returned for them."""
        out = self.process_primitive(primitive, tracers, params)
        for effect in lifted:
            read = [out[r] if isinstance(r, int) else r.val for r in effect.reads]
            self.process_primitive(effect.primitive, read, effect.params)
        return out

    # Calls are flattened, as eager evaluation does; jit is not a call but a primitive, and stays whole.

    def process_call(self, call_primitive: Any, f: Any, tracers: Any, params: Any, /) -> Any:
        with set_current_trace(self):
            return f.call_wrapped(*tracers)

    def process_custom_jvp_call(self, primitive: Any, fun: Any, jvp: Any, tracers: Any, /, **_: Any) -> Any:
        with set_current_trace(self):
            return fun.call_wrapped(*tracers)

    def process_custom_vjp_call(self, primitive: Any, fun: Any, fwd: Any, bwd: Any, tracers: Any, /, **_: Any) -> Any:
        with set_current_trace(self):
            return fun.call_wrapped(*tracers)

    def process_shard_map(self, *args: Any, **kwargs: Any) -> None:
        raise ConcreteValueError(
            f"init code calls jax.shard_map at {user_line()}. One lane is initialized as if it were alone: "
            "leave the mapping to shardinit, or call shard_map on the states afterwards."
        )

    def stage_value(self, value: Any) -> Any:
        if isinstance(value, LaneTracer) and value._trace is self:
            return value
        return LaneTracer(self, staged(self.atom(value)))


def _caller_names(depth: int) -> list[str]:
    frame: types.FrameType | None = sys._getframe(2)
    names: list[str] = []
    while frame is not None and len(names) < depth:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    return names


def _uses_mutable(primitive: Any, params: Any, avals: Any) -> bool:
    """Whether an equation takes, makes or closes over a mutable array."""
    if any(isinstance(aval, AbstractRef) for aval in avals):
        return True
    if UNKNOWN not in primitive_names(primitive, params):  # what reads one is in no table
        return False
    inside = [j for p in (params, *(e.params for e in equations_in(params))) for j in jaxprs_of(p)]
    return any(isinstance(v.aval, AbstractRef) for j in inside for v in j.constvars)


def draws(primitive: Any, params: Any) -> bool:
    """Whether an equation makes random numbers, itself or in a jaxpr that it carries."""
    return any(n.startswith("random_") or n in RANDOM for n in primitive_names(primitive, params))
