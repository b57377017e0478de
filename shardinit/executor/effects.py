"""Effects of init, when everything is made: checks that can raise, prints, callbacks for their effect alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from shardinit.compiler.compile import CompiledInit
from shardinit.lane.checks import Check
from shardinit.lane.equations import Atom, Variable, evaluate
from shardinit.lane.key_rule import Split


def run_check(check: Check, made: Mapping[Atom, Any], compiled: CompiledInit, keys: Sequence[jax.Array]) -> None:
    """Run the effect of a check, given what it reads; where its predicate asks for it, if it has one."""
    by_lane = any(a.on_axis for a in check.equation.inputs)
    if check.predicate is None:
        for lanes in _shares(check, compiled) if by_lane else [np.arange(1)]:
            _run_for(check, made, lanes)
        jax.effects_barrier()
    elif (lanes := _where(check, made[check.predicate], compiled.plan.axis_size)).size:
        _run_where_it_acts(check, made, lanes, compiled, keys)


def _run_where_it_acts(check: Check, made: Any, lanes: np.ndarray, compiled: CompiledInit, keys: Any) -> None:
    """Run an effect for each lane that asks for it.

    A predicate may be that of all lanes of a device (``brainstate``'s ``unvmap``): then the lane that fails is looked
    for first, by computing each again, and the effect is run once.
    """
    if check.predicate is not None and not check.predicate.lost_lanes:
        for lane in lanes:
            _run_for_one(check, made, int(lane), compiled, keys)
        return
    if len(check.reads) == 1 and len(lanes) > 1:
        for lane in lanes:
            _run_for_one(check, {}, int(lane), compiled, keys)
    _run_for_one(check, made, int(lanes[0]), compiled, keys)


def _run_for(check: Check, made: Mapping[Atom, Any], lanes: np.ndarray) -> None:
    """Run an effect for some lanes at once, on the device that made them."""
    atoms = [a for a in made if a.by_lane]
    rows = [_lanes_of(made[a], lanes) for a in atoms]
    alike = {a: whole_here(v) for a, v in made.items() if not a.by_lane}
    if not atoms:
        return _evaluate(check, alike)
    home = next(iter(rows[0].devices()))
    alike = {a: jax.device_put(v, home) for a, v in alike.items()}
    rows = [jax.device_put(r, home) for r in rows]
    jax.vmap(lambda own: _evaluate(check, alike | dict(zip(atoms, own, strict=True))))(rows)


def _run_for_one(
    check: Check, made: Mapping[Atom, Any], lane: int, compiled: CompiledInit, keys: Sequence[jax.Array]
) -> None:
    """Run an effect for one lane alone; what is not there is computed again for it, on one device."""
    known = {a: _lanes_of(v, np.array([lane]))[0] if a.by_lane else whole_here(v) for a, v in made.items()}
    home = jax.local_devices()[0]
    known = {a: jax.device_put(v, home) for a, v in known.items()}
    rule = Split(compiled.plan.axis_size)
    own = [rule.keys(key, jnp.asarray([lane]))[0] for key in keys]
    _evaluate(check, known | dict(zip(compiled.program.keys, own, strict=True)))
    jax.effects_barrier()


def _evaluate(check: Check, known: dict[Any, Any]) -> None:
    check.equation.evaluate(evaluate(check.equation.inputs, dict(known)))


def _where(check: Check, predicate: Any, axis_size: int) -> np.ndarray:
    """Lanes of this process whose predicate asks for the effect."""
    lanes, branches = _own_values(predicate)
    return lanes[np.isin(branches, sorted(check.branches)) & (lanes < axis_size)]


def _shares(check: Check, compiled: CompiledInit) -> list[np.ndarray]:
    """Numbers of the lanes that this process computes, device by device; of all, where they are seen together."""
    plan, mesh = compiled.plan, compiled.mesh
    inputs = [a.equation for a in check.equation.inputs if isinstance(a, Variable) and a.lost_lanes]
    together = any(e is not None and e.all_lanes for e in (check.equation, *inputs))
    if mesh is None or plan.lanes_axis is None or together:
        return [np.arange(plan.axis_size)]
    sharding = NamedSharding(mesh, PartitionSpec(plan.lanes_axis))
    computed = np.arange(plan.padded_axis_size)
    parts: Any = sharding.addressable_devices_indices_map(computed.shape).values()
    starts = sorted({part[0].start or 0 for part in parts})
    shares = [np.arange(s, min(s + plan.lanes_per_device, plan.axis_size)) for s in starts]
    return [s for s in shares if s.size]


def _lanes_of(value: jax.Array, lanes: np.ndarray) -> jax.Array:
    """Rows of some lanes next to each other, on a device that has them all."""
    for shard in value.addressable_shards:
        first, stop, _ = shard.index[0].indices(value.shape[0])
        if first <= lanes[0] and lanes[-1] < stop:
            return shard.data[lanes[0] - first : lanes[-1] - first + 1]
    return value[lanes]


def whole_here(value: Any) -> Any:
    """Take what all devices have from one of this process's; of what is in parts, all of it."""
    if not isinstance(value, jax.Array) or not value.is_fully_replicated or len(value.devices()) == 1:
        return value
    return value.addressable_data(0)


def _own_values(array: Any) -> tuple[np.ndarray, np.ndarray]:
    """Values of this process's shards of ``[lanes]``, with the number of the lane of each; of a scalar, 0."""
    if not isinstance(array, jax.Array) or array.is_fully_addressable:
        values = np.atleast_1d(np.asarray(array))
        return np.arange(len(values)), values
    numbers = np.arange(max(array.size, 1)).reshape(array.shape)
    found = {
        int(n): v
        for shard in array.addressable_shards
        for n, v in zip(np.ravel(numbers[shard.index]), np.ravel(np.asarray(shard.data)), strict=True)
    }
    return np.array(sorted(found), int), np.array([found[n] for n in sorted(found)])
