"""Settings of JAX that init enters hold for what is made inside, and for nothing else."""

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brainstate import ParamState, ShortTermState
from jax.experimental.xla_metadata import set_xla_metadata

import shardinit
from tests.reference import assert_like_brainstate

R = brainstate.random


class Plain(brainstate.nn.Module):
    def init_state(self):
        self.v = ShortTermState(jax.random.uniform(R.split_key(), (4,)))
        self.w = ParamState(R.uniform(size=(6, 6)) @ R.uniform(size=(6, 6)))


class NotPartitionable(brainstate.nn.Module):
    """Keys split, draws and a jit, all under the setting."""

    def init_state(self):
        self.before = ShortTermState(R.uniform(size=(3,)))
        with jax.threefry_partitionable(False):
            self.v = ShortTermState(jax.random.uniform(R.split_key(), (4,)))
            self.keys = ShortTermState(jax.random.split(R.split_key(), 3))
            self.folded = ShortTermState(jax.random.uniform(jax.random.fold_in(R.split_key(), 7), (5,)))
            self.inside = ShortTermState(jax.jit(lambda k: jax.random.bits(k, (7,)))(R.split_key()))
        self.after = ShortTermState(R.uniform(size=(3,)))


class Precise(brainstate.nn.Module):
    def init_state(self):
        with jax.default_matmul_precision("highest"):
            self.w = ParamState(R.uniform(size=(6, 6)) @ R.uniform(size=(6, 6)))


class Promotes(brainstate.nn.Module):
    def init_state(self):
        with jax.numpy_dtype_promotion("strict"):
            self.v = ParamState(R.uniform(size=(4,)) * jnp.float32(2.0))


class Named(brainstate.nn.Module):
    def init_state(self):
        with set_xla_metadata(a="b"):
            self.v = ShortTermState(jax.random.uniform(R.split_key(), (4,)) * 2.0)


def initialized(module):
    return shardinit.shard_new_states(module, axis_size=8)


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("make", [NotPartitionable, Precise, Promotes, Named])
def test_settings_hold_inside_and_only_there(make, first):
    for each in (make, Plain) if first else (Plain, make):
        assert_like_brainstate(each, initialized, axis_size=8)


def test_a_whole_init_under_a_setting():
    with jax.threefry_partitionable(False):
        assert_like_brainstate(Plain, initialized, axis_size=8)
    assert_like_brainstate(Plain, initialized, axis_size=8)


def test_the_stages_may_run_under_other_settings():
    with jax.threefry_partitionable(False):
        expected = Plain()
        R.seed(1)
        brainstate.transform.vmap2_new_states(expected, {}, axis_size=8)
        ours = Plain()
        R.seed(1)
        program = shardinit.discover(ours)
    shardinit.execute(shardinit.compile(program, shardinit.plan(program, "cpu:8", axis_size=8)))
    np.testing.assert_array_equal(ours.v.value, expected.v.value)


class Doubles(brainstate.nn.Module):
    def init_state(self):
        with jax.enable_x64(True):
            self.v = ParamState(jnp.arange(3, dtype=jnp.float64) * np.float64(0.1) + jnp.ones(3, jnp.float64))
        self.w = ParamState(R.uniform(size=(3,)) * 0.1)


def test_doubles_inside_init():
    assert_like_brainstate(Doubles, initialized, axis_size=8)


def test_a_setting_that_cannot_be_seen_in_the_parameters_is_kept():
    found = {make: shardinit.discover(make()).program.outputs[0].atoms[0].equation.settings for make in (Named, Plain)}
    assert found[Named] != found[Plain]
