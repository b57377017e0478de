"""Inside ``jit`` or another transform: the init becomes part of the caller's program."""

from typing import Any

import jax
import jax.numpy as jnp

from shardinit.backend.threads import one_at_a_time
from shardinit.lane.equations import Variable, evaluate, slice_of
from shardinit.lane.key_rule import Split
from shardinit.lane.program import LaneProgram, Sink


@one_at_a_time
def run_inline(program: LaneProgram, sink: Sink, axis_size: int, spmd_axis_name: Any = None) -> None:
    """Map the traced lane under the caller's transform and give its tracers to the sink."""
    keys, rule = sink.keys(), Split(axis_size)
    shared = [o.spec.out_axis is None for o in program.outputs for _ in o.atoms]
    atoms = program.atoms
    mapped_atoms = [a for a, alone in zip(atoms, shared, strict=True) if not alone]
    axes = [o.spec.out_axis for o in program.outputs for _ in o.atoms if o.spec.out_axis is not None]
    effects = {e.serial: e for e in program.effects}
    equations = slice_of(atoms) + [e for s in effects.values() for e in (*slice_of(s.inputs), s)]
    equations = sorted({e.serial: e for e in equations}.values(), key=lambda e: e.serial)
    alone_values: list[Any] = []

    def lane(own: Any) -> list[Any]:
        known: dict[Variable, Any] = dict(zip(program.keys, own, strict=True))
        evaluate([], known, equations)
        alone_values[:] = evaluate([a for a, alone in zip(atoms, shared, strict=True) if alone], known, [])
        return evaluate(mapped_atoms, known, [])

    of_lanes = [rule.keys(key, jnp.arange(axis_size)) for key in keys]
    name: dict[str, Any] = {} if program.axis_name is None else {"axis_name": program.axis_name}
    mapped = jax.vmap(lane, out_axes=axes, axis_size=axis_size, spmd_axis_name=spmd_axis_name, **name)(of_lanes)
    left, alone_left = iter(mapped), iter(alone_values)
    values = [next(alone_left) if alone else next(left) for alone in shared]
    sink.commit(values, [rule.key_after(key) for key in keys])
