"""What a plan decides, slices, padding, rules, budgets, changes where and when values are made, not the values."""

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brainstate import HiddenState, ParamState, ShortTermState

import shardinit
from tests.conftest import mesh_of
from tests.modules import Draws, Nested, Orthogonal, Values
from tests.reference import assert_like_brainstate


class Layers(brainstate.nn.Module):
    """Draws of several sizes, a check, a value that several states use, a shared state."""

    def init_state(self):
        r = brainstate.random
        self.w = ParamState(r.normal(size=(16, 24)) * 0.02)
        self.x = ParamState(r.truncated_normal(-2.0, 2.0, size=(16, 8)))
        self.coins = ShortTermState(r.bernoulli(0.3, size=(40,)))
        base = r.uniform(size=(8, 16))
        self.twice = HiddenState(base * 2.0)
        self.half = HiddenState(base * 0.5)
        self.order = ShortTermState(r.permutation(32))
        self.zero = ShortTermState(np.zeros(8, np.float32))
        self.shared = shardinit.NonBatchState(jnp.arange(16.0))


def sliced_budget(module, **options):
    """Return a budget that cannot be kept without slices."""
    program = shardinit.discover(module)
    free = shardinit.plan(program, shardinit.Topology.local(), memory_budget="unlimited", **options)
    return (free.peak_bytes + max(s.held + s.made for s in free.steps)) // 2


@pytest.mark.parametrize("axes", [0, {0: ..., 1: "never"}, {1: ParamState, 0: ...}], ids=["0", "dict", "mixed"])
@pytest.mark.parametrize("axis_size", [64, 96])
def test_slices_of_lanes_make_the_same_values(axis_size, axes):
    options = {} if axes == 0 else {"state_out_axes": axes}
    budget = sliced_budget(Layers(), axis_size=axis_size)

    def initialize(module):
        result = shardinit.shard_new_states(module, axis_size=axis_size, memory_budget=budget, **options)
        assert max(step.slices for step in result.plan.steps) > 1
        assert result.plan.peak_bytes <= budget
        assert set(result.receipt.measured_bytes.values()) == {result.plan.bytes_per_device}
        return result

    assert_like_brainstate(Layers, initialize, axis_size=axis_size, **options)


class SplitDraws(brainstate.nn.Module):
    """Draws that no device computes whole."""

    def init_state(self):
        r = brainstate.random
        self.normal = ParamState(r.normal(size=(17, 8)) * 0.02)
        self.uniform = ParamState(r.uniform(-1.0, 2.0, size=(16, 10)))
        self.truncated = ParamState(r.truncated_normal(-2.0, 2.0, size=(8, 8)))
        self.gamma = ParamState(r.gamma(2.0, size=(8,)))
        self.exponential = ParamState(r.exponential(size=(8,)))


@pytest.mark.parametrize("make", [SplitDraws, Orthogonal])
def test_slices_of_draws_and_factorizations(make):
    budget = sliced_budget(make(), axis_size=64)
    slices = []

    def initialize(module):
        result = shardinit.shard_new_states(module, axis_size=64, memory_budget=budget)
        slices.extend(step.slices for step in result.plan.steps)
        return result

    assert_like_brainstate(make, initialize, axis_size=64)
    assert max(slices) > 1


@pytest.mark.parametrize("axis_size", [3, 12, 13])
def test_padded_lanes_are_cut_off(axis_size):
    def initialize(module):
        result = shardinit.shard_new_states(
            module, axis_size=axis_size, remainder="pad", rules=[("shared", "replicate")]
        )
        assert result.plan.padded_axis_size % 8 == 0
        assert result.plan.states[0].leaves[0].partition_spec.index("lanes") != 0
        assert set(result.receipt.measured_bytes.values()) == {result.plan.bytes_per_device}
        return result

    ours, _ = assert_like_brainstate(Layers, initialize, axis_size=axis_size)
    assert ours.w.value.shape == (axis_size, 16, 24)
    assert len({s.device for s in ours.w.value.addressable_shards}) == 8


def test_checks_in_padded_lanes_still_raise():
    class Wrong(brainstate.nn.Module):
        def init_state(self):
            self.w = ParamState(brainstate.random.bernoulli(brainstate.random.uniform(size=(8,)) + 2.0))

    with pytest.raises(Exception, match=r"p|prob"):
        shardinit.shard_new_states(Wrong(), axis_size=12, remainder="pad")


@pytest.mark.parametrize("make", [Draws, Nested, Values])
@pytest.mark.parametrize("remainder", ["factor", "replicate"])
@pytest.mark.parametrize("axis_size", [5, 12])
def test_remainders(make, remainder, axis_size):
    def initialize(module):
        return shardinit.shard_new_states(module, axis_size=axis_size, remainder=remainder)

    assert_like_brainstate(make, initialize, axis_size=axis_size)


@pytest.mark.parametrize(
    "rules",
    [
        [("w", (None, "model")), ("*", ...)][:1],
        [("w", ("lanes", None, "model"))],
        [("w", (None, "lanes", "model")), ("x", ("model", "lanes"))],
        [("twice", "replicate"), ("half", "shard_map")],
        [("shared", ("model",)), (ShortTermState, "vmap")],
        [("*", "replicate")],
        [("order", (None, "model")), (HiddenState, (..., "model"))],
    ],
    ids=str,
)
def test_rules(rules):
    def initialize(module):
        result = shardinit.shard_new_states(module, axis_size=8, mesh=mesh_of(4, 2), rules=rules)
        assert set(result.receipt.measured_bytes.values()) == {result.plan.bytes_per_device}
        for state in result.plan.states:
            live = getattr(module, state.spec.path[0]).value
            spec = tuple(live.sharding.spec)
            assert (*spec, *(None,) * (live.ndim - len(spec))) == state.leaves[0].partition_spec
        return result

    assert_like_brainstate(Layers, initialize, axis_size=8)


class Wide(brainstate.nn.Module):
    """Leaves that are too small to be worth splitting, unless a budget asks for it."""

    def init_state(self):
        self.w = [ParamState(brainstate.random.normal(size=(128, 256)) * 0.1) for _ in range(6)]
        self.x = ParamState(brainstate.random.uniform(size=(256, 64)))


def test_every_leaf_split_for_the_budget():
    program = shardinit.discover(Wide())
    free = shardinit.plan(program, shardinit.Topology.local(), axis_size=12)
    assert not any("model" in leaf.partition_spec for s in free.states for leaf in s.leaves)

    def initialize(module):
        result = shardinit.shard_new_states(module, axis_size=12, memory_budget=int(free.bytes_per_device * 0.95))
        assert result.plan.bytes_per_device < free.bytes_per_device
        assert any("model" in leaf.partition_spec for s in result.plan.states for leaf in s.leaves)
        assert set(result.receipt.measured_bytes.values()) == {result.plan.bytes_per_device}
        return result

    assert_like_brainstate(Wide, initialize, axis_size=12)


class Heavy(brainstate.nn.Module):
    """Lanes that are worth splitting: draws, a factorization, a value that two states use."""

    def init_state(self):
        r = brainstate.random
        self.w = ParamState(r.normal(size=(128, 512)) * 0.02)
        self.x = ParamState(r.truncated_normal(-2.0, 2.0, size=(512, 128)))
        base = r.uniform(size=(256, 128))
        self.twice, self.half = ParamState(base * 2.0), ParamState(base * 0.5 - 1.0)
        self.q = HiddenState(jax.nn.initializers.orthogonal()(r.split_key(), (64, 64)))
        self.order = ShortTermState(r.permutation(64))


@pytest.mark.parametrize("axes", [None, {1: ParamState, 0: ...}], ids=["0", "mixed"])
@pytest.mark.parametrize("shape", [(4, 2), (2, 4)], ids=str)
def test_slices_of_lanes_that_are_split_over_model(shape, axes):
    options = {} if axes is None else {"state_out_axes": axes}
    mesh = mesh_of(*shape)
    program = shardinit.discover(Heavy(), **options)
    held = shardinit.plan(program, shardinit.Topology.from_mesh(mesh), axis_size=48).bytes_per_device

    def initialize(module):
        result = shardinit.shard_new_states(module, axis_size=48, mesh=mesh, memory_budget=int(held * 1.2), **options)
        split = {s.spec.name for s in result.plan.states if s.strategy == "gspmd"}
        assert {step.state for step in result.plan.steps if step.slices > 1} & split
        assert set(result.receipt.measured_bytes.values()) == {result.plan.bytes_per_device}
        return result

    assert_like_brainstate(Heavy, initialize, axis_size=48, **options)


def test_a_plan_read_from_json_is_followed():
    brainstate.random.seed(1)
    module = Layers()
    program = shardinit.discover(module)
    budget = sliced_budget(module, axis_size=64)
    planned = shardinit.plan(program, shardinit.Topology.local(), axis_size=64, memory_budget=budget)
    read = shardinit.InitPlan.from_json(planned.to_json())
    result = shardinit.execute(shardinit.compile(program, read))
    slices = [p.program.way.slices for p in result.compiled.programs]
    assert max(slices) == max(step.slices for step in planned.steps)
    again, seeded = Layers(), brainstate.random.seed
    seeded(1)
    shardinit.vmap2_new_states(again, {}, axis_size=64)
    np.testing.assert_array_equal(module.w.value, again.w.value)


def test_nothing_is_made_when_nothing_fits():
    module = Layers()
    key = brainstate.random.DEFAULT.value
    live = jax.live_arrays()  # held, so that what other tests left stays meanwhile
    with pytest.raises(shardinit.MemoryBudgetError, match="memory_budget"):
        shardinit.shard_new_states(module, axis_size=64, memory_budget=1000)
    assert not hasattr(module, "w")
    assert len(jax.live_arrays()) == len(live)
    assert (jax.random.key_data(brainstate.random.DEFAULT.value) == jax.random.key_data(key)).all()


def test_host_values_that_all_lanes_share_take_no_device_memory():
    class Host(brainstate.nn.Module):
        def init_state(self):
            self.w = ParamState(brainstate.random.normal(size=(4,)))
            self.table = shardinit.NonBatchState(np.arange(1000.0))

    result = shardinit.shard_new_states(Host(), axis_size=8)
    assert result.plan.bytes_per_device == 16
    assert set(result.receipt.measured_bytes.values()) == {16}
    with pytest.raises(shardinit.PlanError, match="stays on the host"):
        shardinit.shard_new_states(Host(), axis_size=8, mesh=mesh_of(4, 2), rules=[("table", ("model",))])


@pytest.mark.parametrize(
    "options",
    [
        {"strategy": "pmap"},
        {"rules": [("w", "pmap")]},
        {"rules": [("twice", "replicate")]},
        {"rules": [("*", (..., "lanes"))]},
    ],
    ids=str,
)
def test_padding_with_strategies_and_rules(options):
    class Shaped(brainstate.nn.Module):
        def init_state(self):
            self.w = ParamState(brainstate.random.normal(size=(16, 8)))
            base = brainstate.random.uniform(size=(8, 8))
            self.twice, self.half = HiddenState(base * 2.0), HiddenState(base * 0.5)

    def initialize(module):
        result = shardinit.shard_new_states(module, axis_size=12, remainder="pad", **options)
        assert set(result.receipt.measured_bytes.values()) == {result.plan.bytes_per_device}
        return result

    assert_like_brainstate(Shaped, initialize, axis_size=12)


def test_replicated_padded_and_sliced():
    class Two(brainstate.nn.Module):
        def init_state(self):
            self.a = ParamState(brainstate.random.normal(size=(16, 8)))
            self.b = HiddenState(brainstate.random.uniform(size=(8,)))

    def initialize(module):
        result = shardinit.shard_new_states(
            module, axis_size=12, remainder="pad", rules=[("a", "replicate")], memory_budget=18000
        )
        assert max(step.slices for step in result.plan.steps) > 1
        return result

    assert_like_brainstate(Two, initialize, axis_size=12)


def test_weak_types_survive_where_others_are_sliced():
    class Weak(brainstate.nn.Module):
        def init_state(self):
            self.w = ParamState(jnp.where(brainstate.random.uniform(size=(16, 64)) > 0.5, 1.0, 2.0))
            self.x = ParamState(brainstate.random.normal(size=(256, 64)))

    def initialize(module):
        result = shardinit.shard_new_states(module, axis_size=64, memory_budget=1_000_000)
        assert max(step.slices for step in result.plan.steps) > 1
        return result

    assert_like_brainstate(Weak, initialize, axis_size=64)


def test_collectives_do_not_count_padded_lanes():
    class Summed(brainstate.nn.Module):
        def init_state(self):
            self.w = ParamState(jax.lax.psum(brainstate.random.normal(size=(8,)), "i"))

    def compiled(axis_size, **options):
        program = shardinit.discover(Summed(), axis_name="i", axis_size=axis_size)
        planned = shardinit.plan(program, shardinit.Topology.local(), axis_size=axis_size, **options)
        return shardinit.execute(shardinit.compile(program, planned))

    with pytest.raises(shardinit.PlanError, match="remainder='factor'"):
        compiled(12, remainder="pad")
    assert compiled(8).receipt.states == 1


def test_rules_on_the_default_device_are_not_ignored():
    program = shardinit.discover(Layers())
    with pytest.raises(shardinit.PlanError, match="no mesh"):
        shardinit.plan(program, shardinit.Topology("cpu", 1, ()), axis_size=4, rules=[("w", (None, "model"))])


def test_the_callers_mesh_is_used_as_far_as_it_goes():
    program = shardinit.discover(Layers())
    wide = shardinit.plan(program, shardinit.Topology("cpu", 8, (("x", 1), ("y", 8))), axis_size=64)
    assert wide.lanes_axis == "y"
    heavy = shardinit.discover(Heavy())
    crossed = shardinit.plan(heavy, shardinit.Topology("cpu", 8, (("a", 4), ("b", 2))), axis_size=18)
    assert (crossed.lanes_axis, crossed.states[0].leaves[0].partition_spec) == ("b", ("b", None, "a"))
