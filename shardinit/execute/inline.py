"""Inside ``jit`` or another transform: the init becomes part of the caller's program."""

from typing import Any

import jax
import jax.numpy as jnp

from shardinit.compile.keys import key_after, lane_keys
from shardinit.discover.program import LaneProgram
from shardinit.execute.write_back import write_back
from shardinit.lane.equations import Variable, evaluate, slice_of
from shardinit.threads import one_at_a_time


@one_at_a_time
def run_inline(program: LaneProgram, axis_size: int, spmd_axis_name: Any = None) -> None:
    """Map the traced lane under the caller's transform and write its tracers back."""
    keys = [r.state.value for r in program.random_inputs]
    shared = [o.spec.out_axis is None for o in program.outputs for _ in o.atoms]
    atoms = [a for o in program.outputs for a in o.atoms]
    mapped_atoms = [a for a, alone in zip(atoms, shared, strict=True) if not alone]
    axes = [o.spec.out_axis for o in program.outputs for _ in o.atoms if o.spec.out_axis is not None]
    effects = {e.serial: e for e in program.effects}
    equations = slice_of(atoms) + [e for s in effects.values() for e in (*slice_of(s.inputs), s)]
    equations = sorted({e.serial: e for e in equations}.values(), key=lambda e: e.serial)
    alone_values: list[Any] = []

    def lane(own):
        known: dict[Variable, Any] = {r.variable: k for r, k in zip(program.random_inputs, own, strict=True)}
        evaluate([], known, equations)
        alone_values[:] = evaluate([a for a, alone in zip(atoms, shared, strict=True) if alone], known, [])
        return evaluate(mapped_atoms, known, [])

    of_lanes = [lane_keys(k, jnp.arange(axis_size), axis_size) for k in keys]
    name = {} if program.axis_name is None else {"axis_name": program.axis_name}
    mapped = jax.vmap(lane, out_axes=axes, axis_size=axis_size, spmd_axis_name=spmd_axis_name, **name)(of_lanes)
    left, alone_left = iter(mapped), iter(alone_values)
    values = [next(alone_left) if alone else next(left) for alone in shared]
    write_back(program, values, [key_after(k, axis_size) for k in keys])
