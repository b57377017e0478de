"""Writing back: the only step that touches the module, when everything is there."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from brainstate import State

from shardinit.discover.graph import Change, find_leaves, map_contents, named, substitute, write, write_names
from shardinit.discover.private_brainstate import StateJaxTracer
from shardinit.discover.program import LaneProgram, Output
from shardinit.discover.trace import LaneTracer


def write_back(program: LaneProgram, values: Sequence[Any], keys: Sequence[jax.Array], *, again: bool = False) -> None:
    """Give the module its states and attributes, and the random states their next keys.

    Parameters
    ----------
    program
        What was traced.
    values
        One array per leaf of the program's outputs; None leaves what the trace has.
    keys
        Next key of each random state.
    again
        Whether the module was written before: then only values change, and nothing else that init did
        to the module is done again.
    """
    before = [(s, s._value, s._been_writen) for s in _states(program)]
    try:
        leaves = _leaves(program, values)
        arrays = {id(o.atoms[0]): v[0] for o, v in leaves if o.state is None}
        for change in program.changes:
            _apply(change, arrays, again)
        for output, value in leaves:
            if output.state is not None:
                _write_state(output, value, program.level)
        for random_input, key in zip(program.random_inputs, keys, strict=True):
            random_input.state.value = key
    except BaseException:
        for state, value, been_written in before:
            state._value, state._been_writen = value, been_written
        if not again and program.snapshot is not None:
            program.snapshot.restore()
        raise


def _states(program: LaneProgram) -> list[State]:
    return [o.state for o in program.outputs if o.state is not None] + [r.state for r in program.random_inputs]


def _leaves(program: LaneProgram, values: Sequence[Any]) -> list[tuple[Output, list[Any]]]:
    """Values of each output's leaves."""
    left = iter(values)
    return [(o, [leaf_value(atom, next(left)) for atom in o.atoms]) for o in program.outputs]


def leaf_value(atom: Any, value: Any) -> Any:
    """Value of a leaf; of one that nothing had to be made for, what the trace has."""
    return atom.value if value is None else value


def _write_state(output: Output, leaves: list[Any], level: int) -> None:
    state: Any = output.state
    value = jax.tree.unflatten(output.tree, leaves)
    if output.spec.kind == "new":
        state.stack_level = level
        vars(state)["_trace_state"] = StateJaxTracer()
        state._value = value  # of the same tree: auxiliary data that are arrays cannot be compared
        state.restore_value(value)
    else:
        state._value, state._been_writen = value, True


def _apply(change: Change, arrays: dict[int, Any], again: bool) -> None:
    """Do to a container what init did to it; ``again``: only what holds traced arrays."""

    def is_traced(value):
        return isinstance(value, LaneTracer)

    def concrete(value):
        return substitute(value, is_traced, lambda tracer: arrays[id(tracer.atom)])

    traced = {name for name, value in named(change.after).items() if find_leaves(value, is_traced)}
    if isinstance(change.after, dict):
        before = {} if change.before is None else change.before
        after = change.after
        if again:
            before, after = {}, {name: after[name] for name in traced}
        changed = {k: concrete(v) for k, v in after.items() if k in traced or k not in before or before[k] is not v}
        write_names(change.container, change.kind, {k: v for k, v in before.items() if k not in after}, changed)
    elif traced or not again:
        write(change.container, change.kind, map_contents(change.after, concrete))


def states_by_axis(program: LaneProgram) -> dict[int | None, list[State]]:
    """States by out axis, as brainstate returns them: in the order of the axes, empty ones left out."""
    found: dict[int | None, list[State]] = {axis: [] for axis in program.axis_order}
    for output in program.outputs:
        if output.state is not None and output.spec.kind != "unbatched":
            found[output.spec.out_axis].append(output.state)
    return {axis: states for axis, states in found.items() if states}


def measured_bytes(values: Sequence[Any]) -> dict[str, int]:
    """Bytes that each device of this process holds of these arrays."""
    held: dict[str, int] = {}
    for value in values:
        for shard in getattr(value, "addressable_shards", ()):
            name = str(shard.device)
            size = int(np.prod(shard.data.shape, dtype=np.int64)) * value.dtype.itemsize
            held[name] = held.get(name, 0) + size
    return dict(sorted(held.items()))
