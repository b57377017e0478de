"""Running a piece in slices of the lanes, for less memory."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from shardinit.compiler.lanes import LaneLayout
from shardinit.compiler.programs import Place, UniqueProgram


def sliced(program: UniqueProgram, mapped: Any, layout: LaneLayout, parts: int, lanes: int) -> Any:
    """Map some lanes after the others, each slice into its place in the outputs: only its temporaries live.

    ``parts`` is how the partitioner will split the lanes: then a slice takes as many lanes from every part,
    so that each device works on its own.
    """
    # With 8 lanes in 2 parts and 2 slices, the first slice is lanes 0, 1 (of the first part) and 4, 5 (of the second).
    # Lanes 0 to 3 would all be on one device: the other would wait, and XLA would move lanes between them.
    each = lanes // parts // program.way.slices

    def taken(value: Any, at: Any) -> Any:
        """Lanes of a slice: ``[parts * each, ...]`` of ``[lanes, ...]``."""
        rows = value.reshape(parts, lanes // parts, *value.shape[1:])
        return lax.dynamic_slice_in_dim(rows, at * each, each, 1).reshape(parts * each, *value.shape[1:])

    def whole(shape: Any, place: Place) -> Any:
        """Shape of an output with its lanes as two axes, parts first, and the PartitionSpec of it."""
        axis, spec = place.out_axis, place.partition_spec
        if axis is None:
            return shape, spec
        return (*shape[:axis], parts, lanes // parts, *shape[axis + 1 :]), (*spec[: axis + 1], None, *spec[axis + 1 :])

    def placed(value: Any, spec: Any) -> Any:
        return lax.with_sharding_constraint(value, layout.sharding(spec)) if parts > 1 else value

    def run(counter: Any, keys: Any, literals: Any, constants: Any, shared: Any) -> Any:
        def one(at: Any) -> Any:
            here = [
                taken(v, at) if by_lane else v for v, (_, by_lane) in zip(shared, program.structure.shared, strict=True)
            ]
            return mapped(counter, [taken(k, at) for k in keys], literals, constants, here)

        def put(output: Any, made: Any, place: Place, at: Any) -> Any:
            axis = place.out_axis
            if axis is None:
                return made
            made = made.reshape(*made.shape[:axis], parts, each, *made.shape[axis + 1 :])
            return lax.dynamic_update_slice_in_dim(output, made, at * each, axis + 1)

        def step(at: Any, outputs: Any) -> Any:
            return [
                placed(put(o, made, p, at), whole(made.shape, p)[1])
                for o, made, p in zip(outputs, one(at), program.places, strict=True)
            ]

        shapes = jax.eval_shape(one, jnp.int32(0))
        empty = []
        for made, place in zip(shapes, program.places, strict=True):
            shape, spec = whole(made.shape, place)
            empty.append(placed(jnp.zeros(shape, made.dtype), spec))
        filled = lax.fori_loop(0, program.way.slices, step, empty)
        return [
            o if p.out_axis is None else o.reshape(*o.shape[: p.out_axis], lanes, *o.shape[p.out_axis + 2 :])
            for o, p in zip(filled, program.places, strict=True)
        ]

    return run
