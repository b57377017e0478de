"""What eager brainstate leaves on axis None or in an attribute has the type that it has there."""

import brainstate
import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brainstate import ShortTermState

import shardinit
from tests.reference import assert_like_brainstate, assert_same

FUNCTIONS = [
    lambda m: shardinit.vmap2_new_states(m, {}, axis_size=8),
    lambda m: shardinit.pmap2_new_states(m, {}),
    lambda m: shardinit.shard_new_states(m, axis_size=8),
]


def values():
    scalars = (1.0, 1, True, 1j)
    return {
        "arrays of Python numbers": [jnp.array(x) for x in scalars] + [jnp.asarray(x) for x in scalars],
        "arrays of NumPy numbers": [jnp.array(t(1)) for t in (np.float32, np.float16, np.int8, np.uint8, np.bool_)],
        "arrays of NumPy arrays": [jnp.array(np.arange(3)), jnp.asarray(np.ones(2)), jnp.array(np.array(2.0))],
        "arrays with a dtype": [jnp.array(1, jnp.bfloat16), jnp.float32(2), jnp.array([1, 2]), jnp.array([])],
        "filled": [jnp.full((), 2.0), jnp.zeros_like(1.0), jnp.ones(()), jnp.eye(2), jnp.linspace(0, 1, 3)],
        "put and converted": [jax.device_put(1.0), jax.device_put(np.ones(2)), jnp.pi * jnp.array(2.0)],
        "calls": [jax.jit(lambda: 1.0)(), jax.lax.cond(True, lambda: 1.0, lambda: 2.0), jnp.where(True, 1.0, 2.0)],
        "Python": [*scalars, None],
        "NumPy": [np.float32(2), np.float64(2), np.bool_(1), np.array(2.0), np.arange(3.0), np.ones(2, jnp.bfloat16)],
        "keys": [jax.random.key(0), jax.random.PRNGKey(0)],
        "units": [u.Quantity(jnp.array(1.0)), 1.0 * u.mV, np.arange(3.0) * u.mV],
    }


class Shared(brainstate.nn.Module):
    def init_state(self):
        self.held = values()
        self.states = [shardinit.NonBatchState(v) for v in values().values()]
        self.flat = [shardinit.NonBatchState(x) for group in values().values() for x in group]


class Batched(brainstate.nn.Module):
    def init_state(self):
        self.states = [ShortTermState(v) for v in values().values()]


@pytest.mark.parametrize(("function", "x64"), [(f, False) for f in FUNCTIONS] + [(FUNCTIONS[2], True)])
def test_types_of_leaves_are_those_of_eager_brainstate(function, x64):
    with jax.enable_x64(x64):
        theirs = Shared()
        brainstate.transform.vmap2_new_states(theirs, {}, axis_size=8)
        module, _ = assert_like_brainstate(Shared, function, axis_size=8)
        assert_same(module.held, theirs.held)
        assert_like_brainstate(Batched, function, axis_size=8)


def test_a_number_made_an_array_is_one_inside_jit():
    seen = []

    @brainstate.transform.jit
    def inside():
        module = Shared()
        shardinit.vmap2_new_states(module, {}, axis_size=2)
        seen.extend(isinstance(s.value, jax.Array) for s in module.flat[:8])
        return module.flat[0].value + 1

    assert inside() == 2.0
    assert all(seen)
