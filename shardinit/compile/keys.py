"""RNG keys on devices: those of the lanes, the one afterwards, and the loop that fills a key table."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from shardinit.lane.key_rows import KeyTable
from shardinit.private_jax import Settings, entered, settings, settings_by_name


def lane_keys(key: jax.Array, lanes: jax.Array, axis_size: int) -> jax.Array:
    """Keys of some lanes, ``split(key, axis_size + 1)[1:][lanes]``, shape ``lanes.shape``.

    ``axis_size`` is the number of lanes that are kept, however many are computed. With the partitionable threefry,
    key *i* of a split is ``fold_in(key, i)``, whatever the number of keys, so a device derives its own lanes only, and
    padded lanes get keys of their own. Other implementations have no such rule: they split in full, and padded lanes
    get the last kept one's key.
    """
    if is_prefix_stable(key.dtype):
        return jax.vmap(lambda lane: jax.random.fold_in(key, lane + 1))(lanes)
    return jax.random.split(key, axis_size + 1)[jnp.minimum(lanes + 1, axis_size)]


def key_after(key: jax.Array, axis_size: int) -> jax.Array:
    """Key that brainstate leaves in a random state after mapping its init over ``axis_size`` lanes."""
    count = 1 if is_prefix_stable(key.dtype) else axis_size + 1
    return _advance(key, count)


@functools.partial(jax.jit, static_argnums=1)
def _advance(key, count: int):
    return jax.random.split(jax.random.split(key, count)[0])[1]


@functools.cache
def key_impl(dtype) -> str:
    """Name of the RNG implementation of a key dtype, found without making a key."""
    found: list[str] = []
    jax.eval_shape(lambda key: found.append(str(jax.random.key_impl(key))), jax.ShapeDtypeStruct((), dtype))
    return found[0]


def is_prefix_stable(dtype) -> bool:
    """Whether key *i* of a split does not depend on the number of keys."""
    return str(dtype) == "key<fry>" and bool(settings_by_name(settings())["jax_threefry_partitionable"])


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

    def derive(count: int, there: Settings):
        def one(words, number):
            key = jax.random.wrap_key_data(words, impl=impl)
            with entered(there):
                made = jax.random.split(key, count) if count else jax.random.fold_in(key, number)[None]
            return jnp.pad(jax.random.key_data(made), ((0, width - max(count, 1)), (0, 0)))

        return jax.vmap(one, in_axes=(0, None), out_axes=1)

    branches = [derive(*kind) for kind in kinds]

    def step(filled, xs):
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
