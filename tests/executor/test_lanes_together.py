"""What gives a lane other values by the lanes beside it: every device computes all lanes, and values are eager's."""

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brainstate import ParamState, ShortTermState

import shardinit
from tests.executor.test_eager_steps import Table
from tests.reference import assert_like_brainstate

R = brainstate.random


class Draws(brainstate.nn.Module):
    def init_state(self):
        x = R.normal(size=(64,))
        self.x = ParamState(x * 0.3)
        self.max = ParamState(x / jnp.max(jnp.abs(x)))
        self.key = ShortTermState(R.split_key())
        self.keys = ShortTermState(jax.random.key_data(R.split_key(3)))
        self.order = ParamState(R.permutation(7))
        self.in_jit = ParamState(jax.jit(lambda k: jax.random.bits(jax.random.split(k)[1], (5,)))(R.split_key()))
        self.later = ParamState(jax.random.bits(jax.random.key(R.randint(0, 100, size=())), (5,)))
        self.plain = ParamState(jnp.zeros(3))


@pytest.fixture(params=["rbg", "unsafe_rbg"])
def implementation(request):
    """Keys whose bits depend on how many are drawn from at once."""
    with jax.default_prng_impl(request.param):
        R.seed(7)
        yield request.param
    R.seed(0)


def test_draws_of_other_generators(implementation):
    _, result = assert_like_brainstate(Draws, lambda m: shardinit.shard_new_states(m, axis_size=8), axis_size=8)
    assert not any("number of lanes per device" in note for note in result.receipt.notes)


def test_fused_numerics_draw_the_same_numbers(implementation):
    ours, theirs = Draws(), Draws()
    shardinit.shard_new_states(ours, axis_size=8, numerics="fused")
    R.seed(7)
    brainstate.transform.vmap2_new_states(theirs, {}, axis_size=8)
    for name in ("order", "in_jit", "later", "keys"):
        np.testing.assert_array_equal(getattr(ours, name).value, getattr(theirs, name).value)


@pytest.mark.parametrize("function", [shardinit.vmap2_new_states, shardinit.pmap2_new_states])
def test_a_random_state_of_the_module_with_such_a_key(function):
    class Own(brainstate.nn.Module):
        def __init__(self):
            super().__init__()
            self.rng = R.RandomState(jax.random.key(0, impl="rbg"))

        def init_state(self):
            self.v = ShortTermState(self.rng.randint(0, 1000, size=(5,)))

    assert_like_brainstate(Own, lambda m: function(m, {}, axis_size=8), axis_size=8)


def test_a_plan_of_specs_alone_does_so_too(implementation):
    def initialize(module):
        program = shardinit.discover(module)
        plan = shardinit.plan(program.specs, shardinit.Topology("cpu", 8), axis_size=8)
        return shardinit.execute(shardinit.compile(program, plan))

    assert_like_brainstate(Draws, initialize, axis_size=8)


def test_the_plan_counts_all_lanes(implementation):
    class Large(brainstate.nn.Module):
        def init_state(self):
            self.w = ParamState(R.normal(size=(256, 256)))

    plan = shardinit.plan(shardinit.discover(Large()), "cpu:8", axis_size=8)
    (step,) = [step for step in plan.steps if step.pieces]
    assert step.rounding == "whole"
    assert plan.peak_bytes > 8 * 256 * 256 * 4
    with pytest.raises(shardinit.MemoryBudgetError):
        shardinit.plan(shardinit.discover(Large()), "cpu:8", axis_size=8, memory_budget="1MiB")


@jax.custom_batching.custom_vmap
def centered(v):
    return v


@centered.def_vmap
def _over_lanes(axis_size, in_batched, v):
    return v - jnp.max(v, axis=0), True


MIXED = {
    "custom_vmap": centered,
    "in_jit": jax.jit(lambda v: centered(v) * 0.3),
    "in_checkpoint": jax.checkpoint(lambda v: centered(v) * 0.3),
    "later": lambda v: centered(v * 0.3) * 0.7 + jnp.max(v),
    "twice": lambda v: centered(jnp.sort(centered(v))),
    "any": lambda v: jnp.where(brainstate.transform.unvmap(v[0] > 1.5, op="any"), v, -v),
    "all": lambda v: jax.jit(lambda v: jnp.where(brainstate.transform.unvmap(v[0] > -3, op="all"), v, -v))(v),
    "max": lambda v: v - brainstate.transform.unvmap(v, op="max"),
}


@pytest.mark.parametrize("options", [{}, {"axis_size": 12, "remainder": "pad"}])
def test_rules_that_mix_lanes_see_all_of_them(options):
    options = {"axis_size": 8} | options
    assert_like_brainstate(
        lambda: Table(MIXED), lambda m: shardinit.shard_new_states(m, **options), axis_size=options["axis_size"]
    )
