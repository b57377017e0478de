"""``jax.disable_jit()`` around our functions: the values of eager brainstate under it.

Under it JAX runs ``while_loop``, ``fori_loop``, ``cond``, ``switch``, ``scan``, ``map`` and ``jit`` as Python; where a
lane's value decides, it catches ``ConcretizationTypeError`` and goes on with the primitive.
"""

import brainstate
import jax
import jax.numpy as jnp
import pytest
from brainstate import ShortTermState
from jax import lax

import shardinit
from tests.reference import assert_like_brainstate

R = brainstate.random


class Init(brainstate.nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def init_state(self):
        self.v = ShortTermState(self.value())


VALUES = {
    "poisson": lambda: R.poisson(3.0, size=(2,)),
    "binomial": lambda: R.binomial(10, 0.3, size=(2,)),
    "gamma": lambda: R.gamma(2.0, size=(3,)),
    "gamma by lane": lambda: jax.random.gamma(R.split_key(), R.uniform(0.5, 3.0, size=(3,))),
    "beta": lambda: R.beta(2.0, 3.0, size=(3,)),
    "loggamma": lambda: jax.random.loggamma(R.split_key(), 0.5, (3,)),
    "gamma of a fixed key": lambda: jax.random.gamma(jax.random.key(0), 2.0, (3,)) + R.randint(0, 9, size=(3,)),
    "geometric": lambda: R.geometric(0.3, size=(3,)),
    "truncated_normal": lambda: R.truncated_normal(-1.0, 1.0, size=(3,)),
    "while_loop": lambda: lax.while_loop(lambda c: c < 3.0, lambda c: c + 0.5, R.uniform()),
    "while_loop of shared": lambda: lax.while_loop(lambda c: c < 3, lambda c: c + 1, jnp.asarray(0)) + R.normal(),
    "fori_loop": lambda: lax.fori_loop(0, R.randint(1, 5, size=()), lambda i, c: c * 0.3 + i, R.normal(size=(2,))),
    "cond": lambda: lax.cond(R.normal() > 0, lambda x: x + 1, lambda x: x - 1, R.normal(size=(2,))),
    "switch": lambda: lax.switch(R.randint(0, 2, size=()), [jnp.sin, jnp.cos], R.normal(size=(2,))),
    "scan": lambda: lax.scan(lambda c, x: (c * 0.3 + x, c), 0.0, R.normal(size=(5,)))[1],
    "map": lambda: lax.map(lambda x: x * 2 + 1, R.normal(size=(5,))),
    "jit": lambda: jax.jit(lambda x: x * 0.3 - 65)(R.normal(size=(5,))),
    "checkpoint": lambda: jax.checkpoint(lambda x: x * 0.3 - 65)(R.normal(size=(5,))),
    "for_loop": lambda: brainstate.transform.for_loop(lambda i: R.normal(size=(2,)) * i, jnp.arange(3)),
    "cond of states": lambda: brainstate.transform.cond(R.normal() > 0, lambda: R.normal(), lambda: R.uniform()),
    "while_loop of states": lambda: brainstate.transform.while_loop(
        lambda c: c < 3.0, lambda c: c + R.uniform(), R.uniform()
    ),
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@jax.disable_jit()
def test_values_are_those_of_eager_brainstate(value):
    assert_like_brainstate(lambda: Init(value), lambda m: shardinit.shard_new_states(m, axis_size=4), axis_size=4)


@pytest.mark.parametrize("where", ["a mesh", "jit inside"])
def test_gamma_draws_on_a_mesh_and_where_jit_is_on_again(where):
    def draw():
        with jax.disable_jit(where == "a mesh"):
            return R.gamma(2.0, size=(3,))

    with jax.disable_jit():
        assert_like_brainstate(lambda: Init(draw), lambda m: shardinit.shard_new_states(m, axis_size=8), axis_size=8)


def test_programs_of_gamma_draws_with_and_without_jit_are_not_taken_for_equal():
    plain = Init(lambda: R.gamma(2.0, size=(3,)))
    with jax.disable_jit():
        shardinit.shard_new_states(plain, axis_size=4)
    assert_like_brainstate(
        lambda: Init(lambda: R.gamma(2.0, size=(3,))), lambda m: shardinit.shard_new_states(m, axis_size=4), axis_size=4
    )
