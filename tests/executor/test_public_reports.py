"""What others reported: samplers under shard_map, one noise for all shards, lost shardings.

jax-ml/jax issues 31080, 29881 and 30095, markean/aimz issue 292, ymahlau/fdtdx pull request 433.
"""

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brainstate import HiddenState, ParamState, ShortTermState
from jax.sharding import AxisType

import shardinit
from tests.conftest import mesh_of
from tests.reference import assert_like_brainstate

R = brainstate.random


def planned(value, lanes=8):
    """Assert that every device has its own share of the lanes, and that no two lanes are equal."""
    assert value.addressable_shards[0].data.shape[0] == value.shape[0] // lanes
    assert len(np.unique(np.asarray(value).reshape(len(value), -1), axis=0)) == len(value)


class Samplers31080and29881(brainstate.nn.Module):
    """Loops and gathers whose carries differ by shard while their parameters do not."""

    def init_state(self):
        key = R.split_key()
        alpha = jnp.ones((5, 1))
        self.beta = HiddenState(jax.random.beta(key, alpha, 2.0 * alpha))
        self.gamma = HiddenState(jax.random.gamma(key, 2.0 * alpha))
        self.own_gamma = HiddenState(R.gamma(R.uniform(0.5, 2.0, size=(5,)), size=(5,)))
        p = jnp.arange(1.0, 101.0) / 5050.0
        self.choice = HiddenState(jax.random.choice(key, jnp.arange(100), (5,), p=p))
        self.without = HiddenState(jax.random.choice(key, jnp.arange(100), (5,), replace=False, p=p))
        self.by_lane = HiddenState(jax.random.choice(key, R.normal(size=(100,)), (5,)))
        keys = jax.random.split(key, 3)
        self.mapped = HiddenState(jax.vmap(lambda k: jax.random.choice(k, jnp.arange(100), p=p))(keys))


@pytest.mark.parametrize("strategy", ["shard_map", "pmap"])
def test_beta_gamma_and_choice_on_split_lanes(strategy):
    module, _ = assert_like_brainstate(
        Samplers31080and29881,
        lambda m: shardinit.shard_new_states(m, axis_size=8, mesh=mesh_of(8), strategy=strategy),
        axis_size=8,
    )
    for state in vars(module).values():
        if isinstance(state, brainstate.State):
            planned(state.value)


class Noise(brainstate.nn.Module):
    def init_state(self):
        self.noise = ParamState(R.normal(size=(20,)))
        self.keyed = ParamState(jax.random.normal(R.split_key(), (20,)))


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("spmd", [None, "lanes"])
def test_draws_under_an_ambient_mesh(axis_type, spmd):
    def initialize(module):
        with jax.set_mesh(jax.make_mesh((8,), ("lanes",), axis_types=(axis_type,))):
            return shardinit.vmap2_new_states(module, {}, axis_size=8, spmd_axis_name=spmd)

    module, _ = assert_like_brainstate(Noise, initialize, axis_size=8)
    planned(module.noise.value, 8 if spmd else 1)


@pytest.mark.parametrize(("shape", "axis_size"), [((8,), 16), ((4, 2), 8), ((2, 4), 8)])
@pytest.mark.parametrize("strategy", ["auto", "shard_map", "gspmd"])
def test_no_two_shards_or_lanes_have_the_same_noise(shape, axis_size, strategy):
    module, _ = assert_like_brainstate(
        Noise,
        lambda m: shardinit.shard_new_states(m, axis_size=axis_size, mesh=mesh_of(*shape), strategy=strategy),
        axis_size=axis_size,
    )
    planned(module.noise.value, shape[0])
    planned(module.keyed.value, shape[0])


class Updates(brainstate.nn.Module):
    """Arrays that are filled in place, one part after the other."""

    def init_state(self):
        field = jnp.zeros((16, 4))
        field = field.at[2:6].set(R.normal(size=(4, 4)))
        field = field.at[:, 1].add(0.5)
        field = field.at[jnp.array([0, 9])].multiply(R.uniform(size=(2, 4)))
        self.field = HiddenState(field)
        self.before = ShortTermState(jnp.arange(6.0) + R.normal())
        self.before.value = self.before.value.at[3].set(-1.0)
        self.moved = ShortTermState(self.before.value.at[R.randint(0, 6, size=(2,))].set(R.normal(size=(2,))))


@pytest.mark.parametrize("shape", [(8,), (4, 2)], ids=str)
def test_updates_in_place_keep_the_planned_sharding(shape):
    module, result = assert_like_brainstate(
        Updates, lambda m: shardinit.shard_new_states(m, axis_size=8, mesh=mesh_of(*shape)), axis_size=8
    )
    for state in (module.field, module.before, module.moved):
        planned(state.value, shape[0])
    assert set(result.receipt.measured_bytes.values()) == {result.plan.bytes_per_device}
