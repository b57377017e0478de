"""The one rule by which lanes get their keys, and by which a random state goes on afterwards.

``vmap2_new_states`` splits the key of a random state into one for each lane and one to go on with: lane *i* of ``of``
lanes gets ``split(key, of + 1)[1 + i]``.

With the partitionable threefry, key *i* of a split is ``fold_in(key, i)``, whatever the number of keys: so a device
derives the keys of its own lanes only, and lanes that are computed beyond ``of`` (padding) get keys of their own. Other
implementations have no such rule: they split in full, and padded lanes get the last kept one's key.
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from shardinit.backend.private_jax import settings, settings_by_name


@dataclass(frozen=True, slots=True)
class Split:
    """A key split over the lanes of an ensemble.

    Attributes
    ----------
    of
        Number of lanes that the key is split into, however many are computed.
    """

    of: int

    def keys(self, key: jax.Array, lanes: jax.Array) -> jax.Array:
        """Return the keys of some lanes, in the shape of ``lanes``."""
        if is_prefix_stable(key.dtype):
            return jax.vmap(lambda lane: jax.random.fold_in(key, lane + 1))(lanes)
        return jax.random.split(key, self.of + 1)[jnp.minimum(lanes + 1, self.of)]

    def key_after(self, key: jax.Array) -> jax.Array:
        """Return the key that brainstate leaves in a random state after it has mapped an init over the lanes."""
        return _advance(key, 1 if is_prefix_stable(key.dtype) else self.of + 1)


@functools.partial(jax.jit, static_argnums=1)
def _advance(key: jax.Array, count: int) -> jax.Array:
    return jax.random.split(jax.random.split(key, count)[0])[1]


@functools.cache
def key_impl(dtype: object) -> str:
    """Name of the RNG implementation of a key dtype, found without making a key."""
    found: list[str] = []
    jax.eval_shape(lambda key: found.append(str(jax.random.key_impl(key))), jax.ShapeDtypeStruct((), dtype))
    return found[0]


def is_prefix_stable(dtype: object) -> bool:
    """Whether key *i* of a split does not depend on the number of keys."""
    return str(dtype) == "key<fry>" and bool(settings_by_name(settings())["jax_threefry_partitionable"])
