"""Running a piece in slices of the lanes, for less memory."""

import jax
import jax.numpy as jnp
from jax import lax

from shardinit.compile.layout import Layout
from shardinit.compile.programs import Placement, UniqueProgram


def sliced(program: UniqueProgram, mapped, layout: Layout, parts: int, lanes: int):
    """Map some lanes after the others, each slice into its place in the outputs: only its temporaries live.

    ``parts`` is how the partitioner will split the lanes: then a slice takes as many lanes from every part,
    so that each device works on its own.
    """
    each = lanes // parts // program.slices

    def taken(value, at):
        """Lanes of a slice: ``[parts * each, ...]`` of ``[lanes, ...]``."""
        rows = value.reshape(parts, lanes // parts, *value.shape[1:])
        return lax.dynamic_slice_in_dim(rows, at * each, each, 1).reshape(parts * each, *value.shape[1:])

    def whole(shape, placement: Placement):
        """Shape of an output with its lanes as two axes, parts first, and the PartitionSpec of it."""
        axis, spec = placement.out_axis, placement.partition_spec
        if axis is None:
            return shape, spec
        return (*shape[:axis], parts, lanes // parts, *shape[axis + 1 :]), (*spec[: axis + 1], None, *spec[axis + 1 :])

    def placed(value, spec):
        return lax.with_sharding_constraint(value, layout.sharding(spec)) if parts > 1 else value

    def run(counter, keys, literals, constants, shared):
        def one(at):
            here = [
                taken(v, at) if by_lane else v for v, (_, by_lane) in zip(shared, program.structure.shared, strict=True)
            ]
            return mapped(counter, [taken(k, at) for k in keys], literals, constants, here)

        def put(output, made, placement: Placement, at):
            axis = placement.out_axis
            if axis is None:
                return made
            made = made.reshape(*made.shape[:axis], parts, each, *made.shape[axis + 1 :])
            return lax.dynamic_update_slice_in_dim(output, made, at * each, axis + 1)

        def step(at, outputs):
            return [
                placed(put(o, made, p, at), whole(made.shape, p)[1])
                for o, made, p in zip(outputs, one(at), program.placements, strict=True)
            ]

        shapes = jax.eval_shape(one, jnp.int32(0))
        empty = []
        for made, placement in zip(shapes, program.placements, strict=True):
            shape, spec = whole(made.shape, placement)
            empty.append(placed(jnp.zeros(shape, made.dtype), spec))
        filled = lax.fori_loop(0, program.slices, step, empty)
        return [
            o if p.out_axis is None else o.reshape(*o.shape[: p.out_axis], lanes, *o.shape[p.out_axis + 2 :])
            for o, p in zip(filled, program.placements, strict=True)
        ]

    return run
