"""Tracing: init runs once, abstractly, with every change recorded, and the module is left as it was."""

import contextlib
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any, cast

import jax
import numpy as np
from brainstate import State, StateTraceStack, catch_new_states
from brainstate.nn import Module
from brainstate.random import RandomState

from shardinit.backend.private_jax import extend_axis_env_nd, set_current_trace, trace_ctx
from shardinit.backend.threads import one_at_a_time
from shardinit.frontends.brainstate.axes import AxisFilters, check_axis
from shardinit.frontends.brainstate.host_draws import generators_by_name, watched_draws
from shardinit.frontends.brainstate.host_objects import GLOBAL_GENERATORS
from shardinit.frontends.brainstate.notes import notes_of, stuck_note
from shardinit.frontends.brainstate.outputs import Found, check_shared, outputs_of
from shardinit.frontends.brainstate.private_brainstate import TRACE_CONTEXT
from shardinit.frontends.brainstate.sink import ModuleSink
from shardinit.frontends.brainstate.snapshot import Change, Snapshot, walk
from shardinit.lane.equations import Variable
from shardinit.lane.program import LaneProgram, Output, Traced
from shardinit.lane.trace import LaneTrace, LaneTracer
from shardinit.spec.options import Rewritten
from shardinit.wording import path_text


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
    keeps_returned: bool = False,
) -> Traced:
    """Trace any callable that creates states.

    ``roots`` (path: object) is what it may change. With ``keeps_returned`` what it returns is kept by the sink, and
    arrays in it are outputs too, with paths from ``returned``.
    """
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
            returned = init()
            new_states = [(s, s.value) for s in catcher.get_states()]
        returned = returned if keeps_returned else None
        changes = watch.snapshot.changes(returned)
        found = outputs_of(
            new_states, watch.written(), changes, watch.snapshot, watch.trace, filters, rewritten, returned
        )
        for each in found:
            check_axis(each.spec)
            check_shared(each)
        watch.snapshot.forget_but(changes)
    except BaseException as error:
        if stuck := watch.undo():
            error.add_note(stuck_note(stuck))
        raise
    seconds = time.perf_counter() - started
    return _traced(watch, found, changes, draws, filters, returned, axis_name, axis_size, seconds)


def _traced(
    watch: "_Watch",
    found: Sequence[Found],
    changes: Sequence[Change],
    draws: tuple[dict[str, None], set[str]],
    filters: AxisFilters,
    returned: Any,
    axis_name: Hashable,
    axis_size: int | None,
    seconds: float,
) -> Traced:
    """Put everything back, and put together what was found."""
    stuck = watch.undo()
    new = (c for c in changes if c.before is None and isinstance(c.container, Module))
    added = list(dict.fromkeys(path_text(c.path) for c in new))
    program = LaneProgram(
        outputs=tuple(Output(f.spec, f.atoms) for f in found),
        keys=tuple(cast(Variable, tracer.atom) for tracer in watch.keys.values()),
        effects=tuple(watch.trace.effectful),
        axis_name=axis_name,
        axis_size=axis_size,
    )
    sink = ModuleSink(
        found=tuple(found),
        random_states=tuple(cast(RandomState, state) for state in watch.keys),
        axis_order=filters.order,
        level=watch.level,
        snapshot=watch.snapshot,
        changes=tuple(changes),
        returned=returned,
    )
    notes = notes_of(watch.trace, found, draws, changes, stuck, added)
    return Traced(program, sink, tuple(f.state for f in found), notes, seconds)


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


def _key_aval(value: Any) -> Any:
    """Abstract key of a RandomState, also of one that still holds its raw uint32[2] seed."""
    key = value
    if isinstance(value, np.ndarray):
        key = jax.eval_shape(jax.random.wrap_key_data, jax.ShapeDtypeStruct(value.shape, value.dtype))
    return jax.core.ShapedArray(key.shape, key.dtype)
