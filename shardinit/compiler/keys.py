"""The key program: raw keys of the random states in, a table of every key that pieces draw from out."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P

from shardinit.backend.private_jax import Settings, entered
from shardinit.compiler.lanes import LaneLayout, table_spec
from shardinit.lane.key_rows import KeyTable, key_words
from shardinit.lane.key_rule import Split, key_impl


def key_program(table: KeyTable, layout: LaneLayout) -> tuple[Any, tuple[Any, ...]]:
    """Make the key program, ready to lower: raw keys of the random states in, a key table out."""
    lanes_here = layout.computed // layout.shards
    impl = key_impl(table.dtype)

    def derive(roots: Any, steps: Any) -> jax.Array:
        first = lax.axis_index(layout.lanes_axis) * lanes_here if layout.lanes_axis else 0
        lanes = first + jnp.arange(lanes_here, dtype=jnp.uint32 if layout.computed >= 2**31 else jnp.int32)
        keys = [Split(layout.axis_size).keys(jax.random.wrap_key_data(r, impl=impl), lanes) for r in roots]
        return fill_table(table, jnp.stack([jax.random.key_data(k) for k in keys]), steps)

    words = key_words(table.dtype)
    steps = {
        name: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=layout.replicated) for name, a in table.steps().items()
    }
    roots = [jax.ShapeDtypeStruct((words,), jnp.uint32, sharding=layout.replicated)] * len(table.roots)
    if layout.mesh is not None:
        derive = jax.shard_map(
            derive, mesh=layout.mesh, in_specs=P(), out_specs=P(*table_spec(layout)), check_vma=False
        )
    return named(derive, "shardinit_keys"), (roots, steps)


def table_shape(table: KeyTable, layout: LaneLayout) -> tuple[int, int, int]:
    """Shape of a filled key table, all lanes together."""
    return (table.rows_held, layout.computed, key_words(table.dtype))


def named(function: Any, name: str, **options: Any) -> Any:
    """Jit a function under a name that says in profiles and dumps whose it is."""

    def wrapped(*args: Any) -> Any:
        return function(*args)

    wrapped.__name__ = wrapped.__qualname__ = name
    return jax.jit(wrapped, **options)


def fill_table(table: KeyTable, roots: jax.Array, steps: dict[str, jax.Array]) -> jax.Array:
    """Derive every row of a key table, for some lanes.

    Only the number of rows and the kinds of steps are part of the program; what each step reads and
    writes is data, so the program is the same for every module with as many draws.

    Parameters
    ----------
    roots
        Raw lane keys, uint32 ``[roots, lanes, words]``.
    steps
        ``KeyTable.steps()``: arrays of ``[steps]``.

    Returns
    -------
    jax.Array
        Raw keys, uint32 ``[rows, lanes, words]``, where up to ``max(children) - 1`` rows at the end are unused.
    """
    if not table.parents:
        return roots
    kinds, impl = table.kinds, key_impl(table.dtype)
    width = max(1, *table.children)

    def derive(count: int, there: Settings) -> Any:
        def one(words: Any, number: Any) -> Any:
            key = jax.random.wrap_key_data(words, impl=impl)
            with entered(there):
                made = jax.random.split(key, count) if count else jax.random.fold_in(key, number)[None]
            return jnp.pad(jax.random.key_data(made), ((0, width - max(count, 1)), (0, 0)))

        return jax.vmap(one, in_axes=(0, None), out_axes=1)

    branches = [derive(*kind) for kind in kinds]

    def step(filled: Any, xs: Any) -> Any:
        words = lax.dynamic_index_in_dim(filled, xs["parent"], keepdims=False)
        made = (
            branches[0](words, xs["data"])
            if len(branches) == 1
            else lax.switch(xs["kind"], branches, words, xs["data"])
        )
        return lax.dynamic_update_slice_in_dim(filled, made, xs["first"], axis=0), None

    filled = jnp.zeros((table.rows_held, *roots.shape[1:]), roots.dtype)
    filled = lax.dynamic_update_slice_in_dim(filled, roots, 0, axis=0)
    return lax.scan(step, filled, steps)[0]
