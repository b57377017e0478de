"""Writing back: the only step that touches the module, when everything is there."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import jax
from brainstate import State
from brainstate.random import RandomState

from shardinit.frontends.brainstate.containers import Named, named
from shardinit.frontends.brainstate.outputs import Found
from shardinit.frontends.brainstate.private_brainstate import StateJaxTracer
from shardinit.frontends.brainstate.snapshot import Change, Snapshot, find_leaves, map_contents, substitute
from shardinit.lane.trace import LaneTracer


@dataclass(slots=True, eq=False)
class ModuleSink:
    """Gives a module its states and attributes, and the random states their next keys; or leaves all as it was.

    Attributes
    ----------
    found
        The states and attributes, one per output of the program.
    random_states
        The RandomStates whose keys are the program's inputs.
    axis_order
        Every out axis that the caller's filters can give, in the order of the returned dictionary.
    level
        Trace level of the caller, given to the new states.
    snapshot, changes
        The contents of the module before init, and what init changed in them.
    returned
        What init returned, as traced.
    made
        The same with arrays in place of what was traced, of the last commit.
    """

    found: tuple[Found, ...]
    random_states: tuple[RandomState, ...]
    axis_order: tuple[int | None, ...]
    level: int
    snapshot: Snapshot
    changes: tuple[Change, ...]
    returned: Any = None
    made: Any = None

    def keys(self) -> list[jax.Array]:
        """Return the current key of each random state."""
        return [state.value for state in self.random_states]

    def commit(self, values: Sequence[Any], next_keys: Sequence[jax.Array], *, again: bool = False) -> None:
        """Take everything, or nothing: ``shardinit.lane.program.Sink``."""
        before = [(s, s._value, s._been_writen) for s in self._states()]
        try:
            leaves = list(self._leaves(values))
            arrays = {id(f.atoms[0]): v[0] for f, v in leaves if f.state is None}
            for change in self.changes:
                _apply(change, arrays, again)
            for found, value in leaves:
                if found.state is not None:
                    _write_state(found, value, self.level)
            for state, key in zip(self.random_states, next_keys, strict=True):
                state.value = key
            self.made = substitute(self.returned, _is_traced, lambda tracer: arrays[id(tracer.atom)])
        except BaseException:
            for state, value, been_written in before:
                state._value, state._been_writen = value, been_written
            if not again:
                self.snapshot.restore()
            raise

    def states_by_axis(self) -> dict[int | None, list[State]]:
        """States by out axis, as brainstate returns them: in the order of the axes, empty ones left out."""
        by_axis: dict[int | None, list[State]] = {axis: [] for axis in self.axis_order}
        for found in self.found:
            if found.state is not None and found.spec.kind != "unbatched":
                by_axis[found.spec.out_axis].append(found.state)
        return {axis: states for axis, states in by_axis.items() if states}

    def _states(self) -> list[Any]:
        return [*(f.state for f in self.found if f.state is not None), *self.random_states]

    def _leaves(self, values: Sequence[Any]) -> Iterator[tuple[Found, list[Any]]]:
        """Values of each output's leaves; of one that nothing had to be made for, what the trace has."""
        left = iter(values)
        for found in self.found:
            own: list[Any] = []
            for atom in found.atoms:
                value = next(left)
                own.append(getattr(atom, "value", None) if value is None else value)
            yield found, own


def _is_traced(value: Any) -> bool:
    return isinstance(value, LaneTracer)


def _write_state(found: Found, leaves: list[Any], level: int) -> None:
    state: Any = found.state
    value = jax.tree.unflatten(found.tree, leaves)
    if found.spec.kind == "new":
        state.stack_level = level
        vars(state)["_trace_state"] = StateJaxTracer()
        state._value = value  # of the same tree: auxiliary data that are arrays cannot be compared
        state.restore_value(value)
    else:
        state._value, state._been_writen = value, True


def _apply(change: Change, arrays: dict[int, Any], again: bool) -> None:
    """Do to a container what init did to it; ``again``: only what holds traced arrays."""

    def concrete(value: Any) -> Any:
        return substitute(value, _is_traced, lambda tracer: arrays[id(tracer.atom)])

    traced = {name for name, value in named(change.after).items() if find_leaves(value, _is_traced)}
    if isinstance(change.after, dict):
        before = {} if change.before is None else change.before
        after = change.after
        if again:
            before, after = {}, {name: after[name] for name in traced}
        changed = {k: concrete(v) for k, v in after.items() if k in traced or k not in before or before[k] is not v}
        contents = cast(Named, change.contents)
        contents.change(change.container, {k: v for k, v in before.items() if k not in after}, changed)
    elif traced or not again:
        change.contents.write(change.container, map_contents(change.after, concrete))
