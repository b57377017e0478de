"""The first promise: the bits of brainstate's eager vmap2_new_states, wherever they are made."""

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brainstate import ParamState, ShortTermState

import shardinit
from tests.conftest import mesh_of
from tests.modules import Draws, Nested, Normalized, Orthogonal, Values
from tests.reference import assert_like_brainstate, assert_same

MODULES = [Draws, Orthogonal, Values, Nested]


@pytest.mark.parametrize("make", MODULES)
def test_one_device(make):
    assert_like_brainstate(make, lambda m: shardinit.vmap2_new_states(m, {}, axis_size=6), axis_size=6)


@pytest.mark.parametrize("make", MODULES)
def test_every_mesh(make, mesh):
    assert_like_brainstate(make, lambda m: shardinit.shard_new_states(m, axis_size=16, mesh=mesh), axis_size=16)


@pytest.mark.parametrize("strategy", ["vmap", "shard_map", "gspmd", "pmap"])
@pytest.mark.parametrize("shape", [(8,), (4, 2)], ids=str)
@pytest.mark.parametrize("make", MODULES)
def test_every_strategy(make, strategy, shape):
    def initialize(module):
        return shardinit.shard_new_states(module, axis_size=8, mesh=mesh_of(*shape), strategy=strategy)

    assert_like_brainstate(make, initialize, axis_size=8)


@pytest.mark.parametrize("make", MODULES)
def test_pmap2(make):
    assert_like_brainstate(make, lambda m: shardinit.pmap2_new_states(m, {}), axis_size=8)


@pytest.mark.parametrize("axis_size", [1, 3, 8, 12])
def test_lane_does_not_depend_on_axis_size(axis_size):
    brainstate.random.seed(5)
    few, many = Draws(), Draws()
    shardinit.vmap2_new_states(few, {}, axis_size=axis_size)
    brainstate.random.seed(5)
    shardinit.vmap2_new_states(many, {}, axis_size=16)
    np.testing.assert_array_equal(few.normal.value, many.normal.value[:axis_size])


@pytest.mark.parametrize("axis_size", [1, 5, 16])
def test_arithmetic_after_draws_on_one_device(axis_size):
    assert_like_brainstate(
        Normalized, lambda m: shardinit.vmap2_new_states(m, {}, axis_size=axis_size), axis_size=axis_size
    )


def test_arithmetic_after_draws_is_exact_on_a_mesh_or_named_in_the_receipt(mesh):
    brainstate.random.seed(7)
    theirs, ours = Normalized(), Normalized()
    brainstate.transform.vmap2_new_states(theirs, {}, axis_size=16)
    brainstate.random.seed(7)
    result = shardinit.shard_new_states(ours, axis_size=16, mesh=mesh)
    sums = {"unit_norm", "spectral", "standard", "softmax", "gram", "cumulative", "cholesky"}
    named = next((n for n in result.receipt.notes if n.startswith("sums")), "")
    assert bool(named) == (mesh.shape["lanes"] > 1)
    for name, state in vars(theirs).items():
        if isinstance(state, brainstate.State) and not (named and name in sums):
            assert_same(getattr(ours, name).value, state.value)
        elif name in sums:
            np.testing.assert_allclose(getattr(ours, name).value, state.value, rtol=2e-5, atol=1e-6)


def test_out_axes():
    class Axes(brainstate.nn.Module):
        def init_state(self):
            self.w = ParamState(brainstate.random.normal(size=(4, 6)))
            self.b = ShortTermState(brainstate.random.normal(size=(4,)))
            self.h = brainstate.HiddenState(brainstate.random.normal(size=(2, 3, 4)))

    axes = {1: ParamState, -1: brainstate.HiddenState}
    for mesh in (mesh_of(8), mesh_of(2, 4)):
        module, _ = assert_like_brainstate(
            Axes,
            lambda m, mesh=mesh: shardinit.shard_new_states(m, axis_size=8, mesh=mesh, state_out_axes=axes),
            axis_size=8,
            state_out_axes=axes,
        )
        assert module.w.value.shape == (4, 8, 6)
        assert module.h.value.shape == (2, 3, 4, 8)
        assert module.h.value.sharding.shard_shape(module.h.value.shape)[-1] == 8 // mesh.shape["lanes"]


class Large(brainstate.nn.Module):
    """Large enough that a second mesh axis is worth using."""

    def init_state(self):
        self.weight = ParamState(brainstate.random.normal(size=(512, 1024)) * 0.02)
        self.truncated = ParamState(brainstate.random.truncated_normal(-2.0, 2.0, size=(512, 1024)))
        self.orthogonal = ParamState(
            jax.nn.initializers.orthogonal()(brainstate.random.split_key(), (512, 1024)) @ jnp.eye(1024)
        )


@pytest.mark.parametrize("shape", [(4, 2), (1, 8)], ids=str)
def test_single_lanes_split_over_the_model_axis(shape):
    module, result = assert_like_brainstate(
        Large, lambda m: shardinit.shard_new_states(m, axis_size=4, mesh=mesh_of(*shape)), axis_size=4
    )
    for state in (module.weight, module.truncated, module.orthogonal):
        assert state.value.addressable_shards[0].data.size == state.value.size // 8
    assert set(result.receipt.measured_bytes.values()) == {result.plan.bytes_per_device}


def test_x64():
    with jax.enable_x64(True):
        assert_like_brainstate(Values, lambda m: shardinit.shard_new_states(m, axis_size=8), axis_size=8)


def test_brainstate_precision():
    with brainstate.environ.context(precision="bf16"):
        module, _ = assert_like_brainstate(Draws, lambda m: shardinit.shard_new_states(m, axis_size=8), axis_size=8)
    assert module.normal.value.dtype == jnp.bfloat16


def test_several_random_states_each_go_on_as_brainstate_leaves_them():
    class Two(brainstate.nn.Module):
        def __init__(self):
            super().__init__()
            self.rng = brainstate.random.RandomState(3)

        def init_state(self):
            self.a = ShortTermState(self.rng.normal(size=(3,)))
            self.b = ShortTermState(brainstate.random.normal(size=(3,)))

    theirs, ours = Two(), Two()
    brainstate.random.seed(1)
    brainstate.transform.vmap2_new_states(theirs, {}, axis_size=8)
    brainstate.random.seed(1)
    shardinit.shard_new_states(ours, axis_size=8)
    assert_same(ours.a.value, theirs.a.value)
    assert_same(ours.b.value, theirs.b.value)
    assert_same(ours.rng.value, theirs.rng.value)


def test_fused_is_close_and_says_so():
    brainstate.random.seed(0)
    exact, fused = Draws(), Draws()
    shardinit.shard_new_states(exact, axis_size=8)
    brainstate.random.seed(0)
    result = shardinit.shard_new_states(fused, axis_size=8, numerics="fused")
    np.testing.assert_allclose(fused.normal.value, exact.normal.value, rtol=1e-5)
    assert any("fused" in note for note in result.receipt.notes)


def test_rerun_is_like_a_fresh_initialization_with_that_seed():
    fresh, again = Draws(), Draws()
    result = shardinit.shard_new_states(again, axis_size=8)
    states = [again.normal, again.uniform]
    result.rerun(key=11)
    brainstate.random.seed(11)
    shardinit.shard_new_states(fresh, axis_size=8)
    assert_same(again.normal.value, fresh.normal.value)
    assert_same(again.permutation.value, fresh.permutation.value)
    assert [again.normal, again.uniform] == states


def test_rerun_goes_on_from_the_random_state():
    brainstate.random.seed(4)
    first, second = Draws(), Draws()
    shardinit.shard_new_states(first, axis_size=8)
    expected = shardinit.shard_new_states(second, axis_size=8)
    brainstate.random.seed(4)
    module = Draws()
    shardinit.shard_new_states(module, axis_size=8).rerun()
    assert expected.receipt.states == 10
    assert_same(module.normal.value, second.normal.value)
