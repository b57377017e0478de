"""What NumPy arrays of objects and partials hold is found, made, and put back."""

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brainstate import ParamState

import shardinit
from tests.conftest import mesh_of

R = brainstate.random


class Holding(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.before = np.empty((2, 1), object)
        self.zeros = np.zeros(3)

    def init_state(self):
        self.v = ParamState(R.normal(size=(2,)))
        self.before[1, 0] = self.v.value * 2
        self.made = np.empty(2, object)
        self.made[0] = jnp.ones(2) * 3
        self.partial = jax.tree_util.Partial(jnp.add, jnp.ones(3) * 2)


def test_what_they_hold_is_made():
    module = Holding()
    shardinit.shard_new_states(module, axis_size=8, mesh=mesh_of(8))
    np.testing.assert_array_equal(module.before[1, 0], np.asarray(module.v.value) * 2)
    assert module.before[0, 0] is None
    assert isinstance(module.made[0], jax.Array)
    np.testing.assert_array_equal(module.made[0], [3.0, 3.0])
    assert type(module.partial) is jax.tree_util.Partial
    np.testing.assert_array_equal(module.partial(1.0), [3.0, 3.0, 3.0])


def test_discover_leaves_them_as_they_were():
    module = Holding()
    shardinit.discover(module)
    assert module.before[1, 0] is None
    assert not hasattr(module, "made")


def test_the_sign_of_a_zero_is_put_back():
    class Turning(Holding):
        def init_state(self):
            self.zeros *= -1
            raise KeyError("stop")

    module = Turning()
    with pytest.raises(KeyError):
        shardinit.shard_new_states(module, axis_size=2)
    assert not np.signbit(module.zeros).any()
