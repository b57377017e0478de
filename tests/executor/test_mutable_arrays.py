"""Mutable arrays (``jax.new_ref``): inside of a jit as in eager JAX, and outside of one a clear error."""

import brainstate
import jax
import jax.numpy as jnp
import pytest
from brainstate import ShortTermState

import shardinit
from shardinit.errors import LaneValueError
from tests.conftest import mesh_of
from tests.reference import assert_like_brainstate

BEFORE = jax.new_ref(jnp.ones(3))


@jax.jit
def doubled(x):
    ref = jax.new_ref(x)
    ref[...] = ref[...] * 2
    jax.debug.callback(lambda _: None, x)
    return ref[...]


@jax.jit
def summed(x):
    total = jax.new_ref(jnp.zeros_like(x))

    def step(at, _):
        total[...] = total[...] + at * x

    jax.lax.fori_loop(0, 3, lambda at, carry: step(at, carry), None)
    return jax.freeze(total)


class Inside(brainstate.nn.Module):
    def init_state(self):
        self.v = ShortTermState(doubled(brainstate.random.normal(size=(16,))))
        self.w = ShortTermState(summed(brainstate.random.uniform(size=(16,))))


@pytest.mark.parametrize("shape", [(1,), (8,), (4, 2)], ids=str)
def test_inside_of_a_jit(shape):
    assert_like_brainstate(
        Inside, lambda m: shardinit.shard_new_states(m, axis_size=8, mesh=mesh_of(*shape)), axis_size=8
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda x: jax.freeze(jax.new_ref(x)),
        lambda x: x + BEFORE[...],
        lambda x: jax.jit(lambda x: x + BEFORE[...])(x),
    ],
    ids=["made", "there before", "there before, in a jit"],
)
def test_outside_of_one_the_error_names_the_line(make):
    class Outside(brainstate.nn.Module):
        def init_state(self):
            self.v = ShortTermState(make(brainstate.random.normal(size=(3,))))

    module = Outside()
    with pytest.raises(LaneValueError, match=r"mutable array .*test_mutable_arrays\.py"):
        shardinit.discover(module)
    assert not module.states()
