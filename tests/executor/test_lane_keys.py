"""The keys of lanes: split for the lanes that are kept, however many are computed, by every implementation."""

import contextlib

import brainstate
import jax
import numpy as np
import pytest

import shardinit
from tests.reference import assert_like_brainstate, assert_same

IMPLEMENTATIONS = ["threefry, not partitionable", "rbg", "unsafe_rbg"]


@contextlib.contextmanager
def implementation(name):
    with contextlib.ExitStack() as stack:
        if "not" in name:
            stack.enter_context(jax.threefry_partitionable(False))
        else:
            stack.enter_context(jax.default_prng_impl(name))
        yield


class Keys(brainstate.nn.Module):
    def init_state(self):
        self.first = brainstate.ShortTermState(jax.random.key_data(brainstate.random.split_key()))
        self.others = brainstate.ShortTermState(jax.random.key_data(brainstate.random.split_key(8)))


class Drawn(Keys):
    def init_state(self):
        super().init_state()
        self.w = brainstate.ParamState(brainstate.random.normal(size=(8, 5)))


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
@pytest.mark.parametrize(
    ("axis_size", "options"),
    [
        (6, {"remainder": "pad"}),
        (12, {"remainder": "pad"}),
        (12, {"remainder": "pad", "strategy": "gspmd"}),
        (12, {"remainder": "pad", "strategy": "pmap"}),
        (12, {"remainder": "pad", "strategy": "shard_map"}),
        (12, {"remainder": "replicate"}),
        (12, {"remainder": "factor"}),
        (12, {"strategy": "vmap"}),
        (12, {"strategy": "gspmd"}),
        (16, {"strategy": "shard_map"}),
        (16, {"strategy": "pmap"}),
    ],
    ids=str,
)
def test_every_strategy_and_remainder_gives_each_lane_its_key(name, axis_size, options):
    if options.get("remainder") == "pad":
        options = {**options, "rules": [("first", "replicate")]}
    with implementation(name):
        assert_like_brainstate(
            Drawn,
            lambda module: shardinit.shard_new_states(module, axis_size=axis_size, **options),
            axis_size=axis_size,
        )


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_lanes_under_a_callers_transform_get_their_keys(name):
    with implementation(name):
        brainstate.random.seed(7)
        theirs = Keys()
        brainstate.transform.vmap2_new_states(theirs, {}, axis_size=6)
        after = jax.random.key_data(brainstate.random.DEFAULT.value)
        brainstate.random.seed(7)
        ours = Keys()

        @brainstate.transform.jit
        def initialize():
            shardinit.vmap2_new_states(ours, {}, axis_size=6)
            return ours.first.value, ours.others.value

        first, others = initialize()
        assert_same(first, theirs.first.value)
        assert_same(others, theirs.others.value)
        np.testing.assert_array_equal(jax.random.key_data(brainstate.random.DEFAULT.value), after)


class Odd(brainstate.nn.Module):
    """Nothing that 8 devices divide: padded lanes are computed by parts, and every device holds the result."""

    def init_state(self):
        self.v = brainstate.HiddenState(brainstate.random.normal(size=(3,)) * 0.1)
        self.key = brainstate.ShortTermState(jax.random.key_data(brainstate.random.split_key()))


@pytest.mark.parametrize("options", [{"remainder": "pad"}, {}], ids=str)
def test_padded_and_idle_devices_give_the_same_values(options):
    def initialize(module):
        result = shardinit.shard_new_states(module, axis_size=12, **options)
        assert set(result.receipt.measured_bytes.values()) == {result.plan.bytes_per_device}
        assert len(result.receipt.measured_bytes) == (8 if options else 6)
        return result

    assert_like_brainstate(Odd, initialize, axis_size=12)
