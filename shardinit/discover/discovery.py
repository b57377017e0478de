"""Discovery: trace a module's init once, abstractly, and leave the module as it was."""

import contextlib
import inspect
import time
import types
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal, cast, get_args

import jax
import numpy as np
from brainstate import State, StateTraceStack, catch_new_states
from brainstate.nn import Module
from brainstate.random import RandomState

from shardinit.discover.auxiliary import without_tracers
from shardinit.discover.axes import AxisFilters, axis_filters, check_axis
from shardinit.discover.graph import Change, Snapshot, find_leaves, named, walk
from shardinit.discover.host_draws import generators_by_name, watched_draws
from shardinit.discover.host_objects import GLOBAL_GENERATORS, is_only_seeded
from shardinit.discover.private_brainstate import TRACE_CONTEXT
from shardinit.discover.program import LaneProgram, Output, RandomInput, listed
from shardinit.discover.trace import LaneTrace, LaneTracer
from shardinit.errors import ArgumentError, ArgumentTypeError, LaneValueError, RewrittenStateError
from shardinit.lane.equations import Variable, as_atom, is_on_host
from shardinit.plan.planner import check_axis_size
from shardinit.plan.specs import StateSpec, leaf_spec
from shardinit.private_jax import extend_axis_env_nd, set_current_trace, trace_ctx
from shardinit.threads import one_at_a_time
from shardinit.wording import UNFOLLOWED, key_text, kind_of, path_text

Rewritten = Literal["batch", "error"]


def discover(
    module: Any,
    init_kwargs: Mapping[str, Any] | None = None,
    *,
    state_tag: str | None = None,
    state_out_axes: Any = None,
    axis_name: Any = None,
    axis_size: int | None = None,
    rewritten: Rewritten = "batch",
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
    axis_name
        Name of the mapped axis, for init code with collectives.
    axis_size
        Number of lanes, which collectives can see; the program is for this number alone then. Needed with
        ``axis_name``, and of no meaning without.
    rewritten
        What becomes of a state that existed before and that init writes: ``batch`` batches it like a new one;
        ``error`` keeps what is the same on every lane as it is, without lanes, and refuses anything else.

    Returns
    -------
    LaneProgram
        One ``StateSpec`` per state, and the traced equations.

    Raises
    ------
    ArgumentError
        If there is an ``axis_name`` and no ``axis_size``.
    ArgumentTypeError
        If the module has no ``init_all_states`` or ``init_kwargs`` is no mapping.
    AxisAssignmentError
        If two declared axes claim a state, or a leaf does not have its axis.
    LaneValueError
        If a state on axis None differs by lane.
    RewrittenStateError
        With ``rewritten="error"``, if init writes what differs by lane into a state that existed before.
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
            f"module is {kind_of(module)} without an init_all_states method. "
            "Pass a brainstate.nn.Module, or an object whose init_all_states creates the states."
        )
    if isinstance(module, type) and isinstance(inspect.getattr_static(module, "init_all_states"), types.FunctionType):
        raise ArgumentTypeError(
            f"module is the class {module.__name__}, not an instance. Pass an instance, such as {module.__name__}()."
        )
    kwargs = {} if init_kwargs is None else init_kwargs
    if not isinstance(kwargs, Mapping):
        raise ArgumentTypeError(
            f"init_kwargs is {init_kwargs!r} ({type(init_kwargs).__name__}). "
            "Pass a dictionary of the keyword arguments of init_all_states, such as {'size': 10}."
        )
    if odd := [key for key in kwargs if not isinstance(key, str)]:
        raise ArgumentTypeError(
            f"init_kwargs has the key {odd[0]!r}, which is {kind_of(odd[0])}. Its keys are names of keyword arguments, "
            "such as {'size': 10}."
        )
    if rewritten not in get_args(Rewritten):
        choices = ", ".join(map(repr, get_args(Rewritten)))
        raise ArgumentError(f"rewritten={rewritten!r} is not known. Use one of {choices}.")
    axis_size = _traced_axis_size(axis_name, axis_size)
    filters = axis_filters(state_out_axes)
    roots = {(): module, ("init_kwargs",): kwargs}
    return trace_init(
        lambda: init(**kwargs),
        roots,
        filters,
        state_tag=state_tag,
        axis_name=axis_name,
        axis_size=axis_size,
        rewritten=rewritten,
    )


def _traced_axis_size(axis_name: Any, axis_size: Any) -> int | None:
    """Number of lanes that init code can see: by the name of the axis, or not at all."""
    if axis_name is None:
        return None
    if axis_size is None:
        raise ArgumentError(
            f"axis_name={axis_name!r} needs axis_size: a collective over it, such as jax.lax.psum(1, {axis_name!r}), "
            "sees the number of lanes. Pass the one to plan with, such as axis_size=8."
        )
    return check_axis_size(axis_size)


@one_at_a_time
def trace_init(
    init: Callable[[], Any],
    roots: dict[tuple, Any],
    filters: AxisFilters,
    *,
    state_tag: str | None = None,
    axis_name: Any = None,
    axis_size: int | None = None,
    rewritten: Rewritten = "batch",
) -> LaneProgram:
    """Trace any callable that creates states; ``roots`` (path: object) is what it may change."""
    started = time.perf_counter()
    watch = _Watch(roots, axis_name)
    axis = contextlib.nullcontext() if axis_size is None else extend_axis_env_nd([(axis_name, axis_size)])
    try:
        with (
            watched_draws() as draws,
            catch_new_states(cast(str, state_tag)) as catcher,
            watch.stack,
            axis,
            set_current_trace(watch.trace),
        ):
            init()
            new_states = [(s, s.value) for s in catcher.get_states()]
        changes = watch.snapshot.changes()
        outputs = _outputs(new_states, watch, changes, filters, rewritten)
        for output in outputs:
            check_axis(output.spec)
            _check_shared(output)
        watch.snapshot.forget_but(changes)
    except BaseException as error:
        if stuck := watch.undo():
            error.add_note(_stuck_note(stuck))
        raise
    new = (c for c in changes if c.before is None and isinstance(c.container, Module))
    added = list(dict.fromkeys(path_text(c.path) for c in new))
    notes = _notes(watch, outputs, _drawn(draws, changes), watch.undo(), added)
    return LaneProgram(
        outputs=tuple(outputs),
        axis_order=filters.order,
        random_inputs=tuple(RandomInput(s, cast(Variable, t.atom)) for s, t in watch.keys.items()),
        effects=tuple(watch.trace.effectful),
        notes=notes,
        level=watch.level,
        seconds=time.perf_counter() - started,
        axis_name=axis_name,
        axis_size=axis_size,
        snapshot=watch.snapshot,
        changes=tuple(changes),
    )


class _Watch:
    """What is recorded while init runs, and undone afterwards."""

    def __init__(self, roots: dict[tuple, Any], axis_name: Any):
        self.trace = LaneTrace(trace_ctx.trace, axis_name)
        named = generators_by_name({type(value) for _, value in walk(roots)})
        self.snapshot = Snapshot(roots | {(name,): g for name, g in GLOBAL_GENERATORS.items()} | named)
        self.level = TRACE_CONTEXT.get_trace_stack_level()
        self.stack: StateTraceStack[Any] = StateTraceStack(name="shardinit")
        self.stack.set_new_arg(self._first_touch)
        self.keys: dict[State, LaneTracer] = {}
        self.was_written: dict[State, bool] = {}

    def _first_touch(self, state: State) -> Any:
        """Give a RandomState its lane key; leave other states their value."""
        self.was_written[state] = state._been_writen
        if not isinstance(state, RandomState):
            return state._value
        self.keys[state] = self.trace.new_input(_key_aval(state._value), random_index=len(self.keys))
        return self.keys[state]

    def written(self) -> list[tuple[State, Any]]:
        """Value of every state that existed before and was written."""
        touched = zip(self.stack.states, self.stack.original_state_values, strict=True)
        return [(s, s._value) for s, original in touched if s not in self.keys and s._value is not original]

    def undo(self) -> list[str]:
        """Put states, module and generators back; name the iterators that cannot be."""
        self.trace.is_over = True
        for state, original in zip(self.stack.states, self.stack.original_state_values, strict=True):
            state._value = original
            state._been_writen = self.was_written[state]
        return self.snapshot.restore()


def _outputs(
    new_states, watch: _Watch, changes: list[Change], filters: AxisFilters, rewritten: Rewritten
) -> list[Output]:
    """States in the order of their creation, then those that were written, then attributes."""
    paths = watch.snapshot.state_paths | {id(c.container): c.path for c in changes if isinstance(c.container, State)}
    found = [_state_output(s, value, "new", paths, filters) for s, value in new_states]
    old = [_state_output(s, value, "rewritten", paths, filters) for s, value in watch.written()]
    attributes = _attribute_outputs(changes, watch.trace)
    if rewritten == "error":
        _check_unbatched(old + [o for o in attributes if watch.snapshot.is_in_a_state(o.spec.path)])
        old = [replace(o, spec=replace(o.spec, kind="unbatched", out_axis=None)) for o in old]
    return found + old + attributes


def _key_aval(value: Any) -> Any:
    """Abstract key of a RandomState, also of one that still holds its raw uint32[2] seed."""
    key = value
    if isinstance(value, np.ndarray):
        key = jax.eval_shape(jax.random.wrap_key_data, jax.ShapeDtypeStruct(value.shape, value.dtype))
    return jax.core.ShapedArray(key.shape, key.dtype)


def _state_output(state: State, value: Any, kind: Any, paths: Mapping[int, tuple], filters: AxisFilters) -> Output:
    path = paths.get(id(state), ())
    leaves, tree = jax.tree.flatten(value)
    tree = without_tracers(tree, lambda tracer, place: _auxiliary_value(tracer, state, path, place))
    atoms = tuple(leaf.atom if isinstance(leaf, LaneTracer) else _outside(leaf, state, path) for leaf in leaves)
    spec = StateSpec(
        path=tuple(map(key_text, path)),
        state_class=type(state).__name__,
        leaves=tuple(
            leaf_spec(a.aval, a.by_lane, is_on_host(a), _taken_wish(leaf))
            for a, leaf in zip(atoms, leaves, strict=True)
        ),
        out_axis=filters.axis_of(path, state),
        tags=tuple(sorted(state.tag or ())),
        kind=kind,
    )
    return Output(spec, atoms, state, tree)


def _taken_wish(leaf: Any) -> tuple[str | None, ...]:
    """What init wants of the placement of an array; from here on it is the state's, and named with that if at all."""
    wish = leaf.wish if isinstance(leaf, LaneTracer) else None
    if wish is None:
        return ()
    wish.of_state = True
    return wish.axes


def _outside(leaf: Any, state: State, path: tuple) -> Any:
    try:
        return as_atom(leaf)
    except TypeError:
        raise ArgumentTypeError(
            f"cannot keep {path_text(path)} ({type(state).__name__}): it holds {kind_of(leaf)}, which is no array. "
            "Keep it in an attribute of the module, outside of any State."
        ) from None


def _auxiliary_value(tracer: LaneTracer, state: State, path: tuple, place: tuple) -> Any:
    """Value of a tracer in the auxiliary data of a state's pytree, which has no lanes."""
    name, where = path_text(path), ".".join(map(key_text, place))
    if tracer.atom.on_axis:
        raise LaneValueError(
            f"cannot keep {tracer.aval.str_short()} of {where} in {name} ({type(state).__name__}): its value differs "
            "by lane, and it is in the auxiliary data of a pytree, which has no lanes. Make it a leaf of that class "
            "(return it with the children in tree_flatten), or derive it from something that all lanes share."
        )
    return tracer._trace.concrete(tracer, f"{where} in {name} (auxiliary data)")


def _attribute_outputs(changes: list[Change], trace: LaneTrace) -> list[Output]:
    """One output per traced array that init left in an attribute outside of any State."""
    found: dict[int, Output] = {}

    def is_traced(value):
        return isinstance(value, LaneTracer) and value._trace is trace

    for change in changes:
        for name, value in named(change.after).items():
            for tracer in find_leaves(value, is_traced):
                atom = tracer.atom
                path = tuple(map(key_text, (*change.path, name)))
                spec = StateSpec(
                    path,
                    "array",
                    (leaf_spec(atom.aval, atom.by_lane, is_on_host(atom)),),
                    0 if atom.by_lane else None,
                    (),
                    "attribute",
                )
                found.setdefault(id(atom), Output(spec, (atom,), None, None))
    return list(found.values())


def _check_unbatched(outputs: list[Output]) -> None:
    """Refuse what differs by lane in states that existed before."""
    batched = [o.spec for o in outputs if any(leaf.by_lane for leaf in o.spec.leaves)]
    if batched:
        raise RewrittenStateError(
            f"cannot write {batched[0]}: it is a pre-existing state, and init writes a value that differs by lane "
            f"into it (states of this kind={len(batched)}: {listed([s.name for s in batched])}). Nothing was changed. "
            'Create the state in init_state, or batch it as well by shard_new_states(..., rewritten="batch").'
        )


def _check_shared(output: Output) -> None:
    if output.spec.out_axis is None and any(leaf.by_lane for leaf in output.spec.leaves):
        raise LaneValueError(
            f"cannot keep one value of {output.spec} for all lanes: it is on axis None, but its value differs by "
            "lane (it draws from a RandomState whose key is split over the lanes). Give it an axis in "
            "state_out_axes, such as {0: ...}, or draw from a fixed key, jax.random.key(0)."
        )


def _drawn(draws: tuple[dict[str, None], set[str]], changes: list[Change]) -> list[str]:
    """What in init drew random numbers on the host: lines that make generators, names of those that moved."""
    lines, seeded = draws
    moved = {path_text(c.path): c.after for c in changes if c.kind == "generator" and c.before is not None}
    return [*lines, *(name for name, after in moved.items() if name not in seeded or not is_only_seeded(after))]


def _stuck_note(names: list[str]) -> str:
    return f"init advanced iterators, which Python cannot put back: {', '.join(names)}"


def _notes(
    watch: _Watch, outputs: list[Output], drawn: list[str], stuck: list[str], added: list[str]
) -> tuple[str, ...]:
    notes = [
        f"evaluated on the way, since init code asks for its value: {size} bytes at {line}"
        for line, size in watch.trace.concretized.items()
    ]
    asked = watch.trace.placements
    notes += [f"{UNFOLLOWED}: {line}" for line, wishes in asked.items() if not all(w.of_state for w in wishes)]
    notes += [
        f"{size} bytes that a jit inside init closes over are numbers in its program, on every device: {line}"
        for line, size in watch.trace.inside.items()
    ]
    same = [o.spec.name for o in outputs if _is_same_random_everywhere(o)]
    if same:
        notes.append(f"the same random numbers on every lane (a fixed seed or key inside init): {', '.join(same)}")
    if drawn:
        notes.append(
            "init drew random numbers on the host (NumPy generator, random, os.urandom): they are the same on every "
            f"lane: {', '.join(drawn)}"
        )
    if stuck:
        notes.append(_stuck_note(stuck))
    batched = [o.spec.name for o in outputs if o.spec.kind == "attribute" and o.spec.out_axis == 0]
    if batched:
        notes.append(f"attributes outside of any State that differ by lane, batched on axis 0: {', '.join(batched)}")
    if added:
        notes.append(
            "init makes modules. brainstate runs init twice, the second time with what the first has left, and keeps "
            f"the second; these are the numbers of one run. Make them in __init__: {', '.join(added)}"
        )
    return tuple(notes)


def _is_same_random_everywhere(output: Output) -> bool:
    return any(isinstance(a, Variable) and a.random and not a.by_lane for a in output.atoms)
