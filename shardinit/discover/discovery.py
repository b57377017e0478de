"""Discovery: trace a module's init once, abstractly, and leave the module as it was."""

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import numpy as np
from brainstate import State, StateTraceStack, catch_new_states
from brainstate.random import RandomState

from shardinit.discover.axes import AxisFilters, axis_filters, check_axis
from shardinit.discover.equations import Variable, as_atom
from shardinit.discover.graph import Snapshot, find_leaves
from shardinit.discover.private_brainstate import TRACE_CONTEXT
from shardinit.discover.program import LaneProgram, Output, RandomInput, listed
from shardinit.discover.trace import LaneTrace, LaneTracer
from shardinit.errors import ArgumentTypeError, LaneValueError
from shardinit.plan.specs import StateSpec, leaf_spec
from shardinit.private_jax import extend_axis_env_nd, set_current_trace, trace_ctx


def discover(
    module: Any,
    init_kwargs: Mapping[str, Any] | None = None,
    *,
    state_tag: str | None = None,
    state_out_axes: Any = None,
    axis_name: Any = None,
    axis_size: int = 1,
) -> LaneProgram:
    """Trace ``module.init_all_states(**init_kwargs)`` for one lane, making no array.

    The init code runs once in Python. The module, the random states and every state that existed are
    as before when it returns; what init did to them is kept in the program, to be done by ``execute``.

    Parameters
    ----------
    module
        Any object with an ``init_all_states`` method that creates ``brainstate.State`` objects.
    init_kwargs
        Keyword arguments of ``init_all_states``.
    state_tag
        Tag given to every new state, before the filters see it.
    state_out_axes
        ``{axis: filter}`` or one filter (axis 0), as in ``brainstate.transform.vmap2_new_states``.
        Filters see the state's path in the module.
    axis_name, axis_size
        Name and size of the mapped axis, for init code with collectives.

    Returns
    -------
    LaneProgram
        One ``StateSpec`` per state, and the traced equations.

    Raises
    ------
    ArgumentTypeError
        If the module has no ``init_all_states`` or ``init_kwargs`` is no mapping.
    AxisAssignmentError
        If two declared axes claim a state, or a leaf does not have its axis.
    LaneValueError
        If a state on axis None differs by lane.
    ConcreteValueError
        If init code needs the concrete value of what differs by lane.

    Examples
    --------
    >>> import brainstate, shardinit
    >>> class Neurons(brainstate.nn.Module):
    ...     def init_state(self):
    ...         self.v = brainstate.ShortTermState(brainstate.random.normal(size=(100,)))
    >>> shardinit.discover(Neurons()).specs[0].leaves[0].shape
    (100,)
    """
    init = getattr(module, "init_all_states", None)
    if not callable(init):
        raise ArgumentTypeError(
            f"module is a {type(module).__name__} without an init_all_states method. "
            "Pass a brainstate.nn.Module, or an object whose init_all_states creates the states."
        )
    kwargs = {} if init_kwargs is None else init_kwargs
    if not isinstance(kwargs, Mapping):
        raise ArgumentTypeError(
            f"init_kwargs is {init_kwargs!r} ({type(init_kwargs).__name__}). "
            "Pass a dictionary of the keyword arguments of init_all_states, such as {'size': 10}."
        )
    filters = axis_filters(state_out_axes)
    return trace_init(
        lambda: init(**kwargs), module, filters, state_tag=state_tag, axis_name=axis_name, axis_size=axis_size
    )


def trace_init(
    init: Callable[[], Any],
    root: Any,
    filters: AxisFilters,
    *,
    state_tag: str | None = None,
    axis_name: Any = None,
    axis_size: int = 1,
) -> LaneProgram:
    """Trace any callable that creates states; ``root`` is what it may change."""
    started = time.perf_counter()
    trace = LaneTrace(trace_ctx.trace)
    snapshot = Snapshot(root)
    stack: StateTraceStack[Any] = StateTraceStack(name="shardinit")
    keys: dict[State, LaneTracer] = {}
    was_written: dict[State, bool] = {}
    numpy_before = np.random.get_state()

    def give_lane_key(state: State) -> Any:
        was_written[state] = state._been_writen
        if not isinstance(state, RandomState):
            return state._value
        keys[state] = trace.new_input(_key_aval(state._value), random_index=len(keys))
        return keys[state]

    stack.set_new_arg(give_lane_key)
    level = TRACE_CONTEXT.get_trace_stack_level()
    axis = extend_axis_env_nd([(axis_name, axis_size)]) if axis_name is not None else contextlib.nullcontext()
    try:
        with catch_new_states(cast(str, state_tag)) as catcher, stack, axis, set_current_trace(trace):
            init()
            new_states = list(catcher.get_states())
            values = {id(s): s.value for s in new_states}
        changes = snapshot.changes()
        paths = _state_paths(changes, snapshot)
        outputs = [_state_output(s, values[id(s)], "new", paths, filters) for s in new_states]
        written = _written(stack, keys)
        outputs += [_state_output(s, v, "rewritten", paths, filters) for s, v in written.items()]
        outputs += _attribute_outputs(changes, trace)
        for output in outputs:
            check_axis(output.spec)
            _check_shared(output)
        random_inputs = tuple(RandomInput(s, cast(Variable, t.atom)) for s, t in keys.items())
        numpy_after = np.random.get_state()
        moved = not _same_numpy_state(numpy_before, numpy_after)
        notes = _notes(trace, outputs, random_inputs, moved)
    finally:
        np.random.set_state(numpy_before)
        for state, original in zip(stack.states, stack.original_state_values, strict=True):
            state._value = original
            state._been_writen = was_written[state]
        snapshot.restore()
    return LaneProgram(
        outputs=tuple(outputs),
        axis_order=filters.order,
        random_inputs=random_inputs,
        effects=tuple(trace.effectful),
        notes=notes,
        level=level,
        seconds=time.perf_counter() - started,
        axis_name=axis_name,
        module=root,
        snapshot=snapshot,
        changes=tuple(changes),
        numpy_state=numpy_after if moved else None,
    )


def _key_aval(value: Any) -> Any:
    """Abstract key of a RandomState, also of one that still holds its raw uint32[2] seed."""
    if isinstance(value, np.ndarray):
        key = jax.eval_shape(jax.random.wrap_key_data, jax.ShapeDtypeStruct(value.shape, value.dtype))
        return jax.core.ShapedArray(key.shape, key.dtype)
    return jax.typeof(value)


def _state_paths(changes, snapshot: Snapshot) -> dict[int, tuple]:
    """Where each state is in the module, by identity."""
    new = {id(c.container): c.path for c in changes if isinstance(c.container, State)}
    return snapshot.state_paths | new


def _written(stack: StateTraceStack, keys: Mapping[State, Any]) -> dict[State, Any]:
    """Value of every state that existed before and was written."""
    return {
        state: state._value
        for state, original in zip(stack.states, stack.original_state_values, strict=True)
        if state not in keys and state._value is not original
    }


def _state_output(state: State, value: Any, kind: Any, paths: Mapping[int, tuple], filters: AxisFilters) -> Output:
    path = paths.get(id(state), ())
    leaves, tree = jax.tree.flatten(value)
    atoms = tuple(leaf.atom if isinstance(leaf, LaneTracer) else as_atom(leaf) for leaf in leaves)
    spec = StateSpec(
        path=tuple(map(str, path)),
        state_class=type(state).__name__,
        leaves=tuple(leaf_spec(a.aval, a.by_lane) for a in atoms),
        out_axis=filters.axis_of(path, state),
        tags=tuple(sorted(state.tag or ())),
        kind=kind,
    )
    return Output(spec, atoms, state, tree)


def _attribute_outputs(changes, trace: LaneTrace) -> list[Output]:
    """One output per traced array that init left in an attribute outside of any State."""
    found: dict[int, Output] = {}

    def is_traced(value):
        return isinstance(value, LaneTracer) and value._trace is trace

    for change in changes:
        named = change.after.items() if isinstance(change.after, dict) else [(None, change.after)]
        for name, value in named:
            values = value if isinstance(value, (list, set)) and value is change.after else [value]
            for tracer in (t for v in values for t in find_leaves(v, is_traced)):
                if id(tracer.atom) not in found:
                    path = tuple(map(str, change.path if name is None else (*change.path, name)))
                    by_lane = tracer.atom.by_lane
                    spec = StateSpec(
                        path, "array", (leaf_spec(tracer.aval, by_lane),), 0 if by_lane else None, (), "attribute"
                    )
                    found[id(tracer.atom)] = Output(spec, (tracer.atom,), None, None)
    return list(found.values())


def _check_shared(output: Output) -> None:
    if output.spec.out_axis is None and any(leaf.by_lane for leaf in output.spec.leaves):
        raise LaneValueError(
            f"cannot keep one value of {output.spec} for all lanes: it is on axis None, but its value differs by "
            "lane (it draws from a RandomState whose key is split over the lanes). Give it an axis in "
            "state_out_axes, such as {0: ...}, or draw from a fixed key, jax.random.key(0)."
        )


def _notes(trace: LaneTrace, outputs, random_inputs, numpy_moved: bool) -> tuple[str, ...]:
    notes = [
        f"evaluated on the way, since init code asks for its value: {size} bytes at {line}"
        for line, size in trace.concretized.items()
    ]
    same = [o.spec.name for o in outputs if _is_same_random_everywhere(o)]
    if same:
        notes.append(f"the same random numbers on every lane (a fixed seed or key inside init): {listed(same)}")
    if numpy_moved:
        notes.append("init drew from NumPy's global generator: those numbers are the same on every lane")
    batched = [o.spec.name for o in outputs if o.spec.kind == "attribute" and o.spec.out_axis == 0]
    if batched:
        notes.append(f"attributes outside of any State that differ by lane, batched on axis 0: {listed(batched)}")
    rbg = {str(r.variable.aval.dtype) for r in random_inputs} - {"key<fry>"}
    if rbg:
        notes.append(f"keys of {listed(sorted(rbg))}: values can depend on the number of lanes per device")
    return tuple(notes)


def _is_same_random_everywhere(output: Output) -> bool:
    return any(isinstance(a, Variable) and a.random and not a.by_lane for a in output.atoms)


def _same_numpy_state(a, b) -> bool:
    return a[0] == b[0] and a[2:] == b[2:] and np.array_equal(a[1], b[1])
