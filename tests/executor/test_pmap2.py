"""pmap2_new_states: lanes on devices, collectives, a mesh that users can combine with their own."""

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brainstate import HiddenState, ParamState, ShortTermState
from jax.sharding import NamedSharding, PartitionSpec

import shardinit
from tests.conftest import mesh_of
from tests.reference import assert_same


class Plain(brainstate.nn.Module):
    def init_state(self):
        self.w = ParamState(brainstate.random.truncated_normal(-2.0, 2.0, size=(3, 4)))
        self.n = shardinit.NonBatchState(jnp.arange(3))


@pytest.mark.parametrize("axis_size", [None, 1, 3, 8, 16, 64])
def test_axis_sizes(axis_size):
    module, reference = Plain(), Plain()
    shardinit.pmap2_new_states(module, {}, axis_size=axis_size)
    size = axis_size or 8
    brainstate.random.seed(42)
    brainstate.transform.vmap2_new_states(reference, {}, axis_size=size)
    assert_same(module.w.value, reference.w.value)
    assert len(module.w.value.sharding.device_set) == min(size, 8)
    assert module.w.value.addressable_shards[0].data.shape == (max(size // 8, 1), 3, 4)
    assert module.n.value.is_fully_replicated


@pytest.mark.parametrize("axis_size", [9, 12])
def test_sizes_that_do_not_fit_name_those_that_do(axis_size):
    with pytest.raises(
        ValueError, match=f"axis_size={axis_size}, local devices=8.*axis_size=16, or any number up to 8"
    ):
        shardinit.pmap2_new_states(Plain(), {}, axis_size=axis_size)


def test_negative_axis():
    module = Plain()
    shardinit.pmap2_new_states(module, {}, state_out_axes={-1: ParamState})
    assert module.w.value.shape == (3, 4, 8)
    assert module.w.value.sharding.spec == PartitionSpec(None, None, "lanes")


class Collective(brainstate.nn.Module):
    def init_state(self):
        x = brainstate.random.normal(size=(3,))
        self.x = HiddenState(x)
        self.rank = ShortTermState(jax.lax.axis_index("i"))
        self.centred = HiddenState(x - jax.lax.pmean(x, "i"))
        self.total = shardinit.NonBatchState(jax.lax.psum(x, "i"))


@pytest.mark.parametrize("axis_size", [4, 8, 16])
def test_collectives_inside_init(axis_size):
    module = Collective()
    shardinit.pmap2_new_states(module, {}, axis_size=axis_size, axis_name="i")
    x = np.asarray(module.x.value)
    np.testing.assert_array_equal(module.rank.value, np.arange(axis_size))
    np.testing.assert_allclose(module.total.value, x.sum(axis=0), rtol=1e-5)
    np.testing.assert_allclose(module.centred.value, x - x.mean(axis=0), rtol=1e-4, atol=1e-6)
    assert module.total.value.shape == (3,)
    shards = [np.asarray(s.data) for s in module.total.value.addressable_shards]
    assert all(np.array_equal(s, shards[0]) for s in shards)


def test_arrays_combine_with_the_users_own_mesh():
    module = Plain()
    shardinit.pmap2_new_states(module, {}, axis_name="replica")
    assert module.w.value.sharding.mesh.axis_names == ("replica",)
    own = jax.device_put(jnp.ones((8, 3, 4)), NamedSharding(mesh_of(8, names=("replica",)), PartitionSpec("replica")))
    total = jax.jit(lambda a, b: a + b)(module.w.value, own)
    assert total.sharding.spec[0] == "replica"
