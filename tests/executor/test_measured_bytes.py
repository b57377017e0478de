"""The receipt's bytes by device are those of the states' arrays, also of arrays that were there already."""

import brainstate
import jax
import jax.numpy as jnp
import pytest
from brainstate import ParamState, ShortTermState

import shardinit
from tests.conftest import mesh_of


class Shared(brainstate.nn.Module):
    def init_state(self):
        self.constant = shardinit.NonBatchState(jnp.arange(3.0))
        self.tree = ShortTermState({"a": jnp.ones((2,)), "b": 3})
        self.drawn = ParamState(brainstate.random.normal(size=(5,)))


@pytest.mark.parametrize("shape", [(1,), (8,)], ids=str)
def test_shared_states_are_measured(shape):
    module = Shared()
    axes = {None: ShortTermState, 0: ParamState}
    result = shardinit.shard_new_states(module, axis_size=8, state_out_axes=axes, mesh=mesh_of(*shape))
    states = [module.constant, module.tree, module.drawn]
    arrays = [a for s in states for a in jax.tree.leaves(s.value) if isinstance(a, jax.Array)]
    expected = {
        str(d): sum(s.data.nbytes for a in arrays for s in a.addressable_shards if s.device == d)
        for d in jax.devices()[: shape[0]]
    }
    assert result.receipt.measured_bytes == expected
