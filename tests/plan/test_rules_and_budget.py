"""Rules, remainders, budgets, plans as text: what they do, and what is said where they cannot."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import brainstate
import jax.numpy as jnp
import pytest
from brainstate.util import filter as filters
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec

from shardinit import (
    ArgumentError,
    ArgumentTypeError,
    InitPlan,
    LeafSpec,
    MemoryBudgetError,
    NonBatchState,
    PlanError,
    StateSpec,
    Topology,
    discover,
    plan,
)

MIB = 1 << 20
CPU = Topology("cpu", 8)


def state(path, *shape, out_axis=0, kind="ParamState", tags=()):
    leaf = LeafSpec(shape, "float32", 4, False, out_axis is not None)
    return StateSpec(tuple(path.split("/")), kind, (leaf,), out_axis, tags)


SPECS = [
    state("layers/0/weight", 16, 24, tags=("frozen",)),
    state("layers/0/bias", 24),
    state("layers/1/weight", 24, 8),
    state("layers/1/bias", 8, kind="HiddenState", tags=("fast", "frozen")),
    state("scale", 4, out_axis=None, kind="NonBatchState"),
]


def placed(rules, specs=SPECS, topology=CPU, axis_size=12, **options):
    """PartitionSpec of the first leaf of every state, by path."""
    planned = plan(specs, topology, axis_size=axis_size, rules=rules, **options)
    return {"/".join(s.spec.path): s.leaves[0].partition_spec for s in planned.states}


def replicated(rules, specs=SPECS, **options):
    """Paths of the states that a rule replicates."""
    planned = plan(specs, CPU, axis_size=12, rules=rules, **options)
    return {"/".join(s.spec.path) for s in planned.states if s.reason.endswith("every device holds all of it")}


class Net(brainstate.nn.Module):
    def init_state(self):
        self.weight = brainstate.ParamState(brainstate.random.normal(size=(16, 24)))
        self.v = brainstate.HiddenState(brainstate.random.uniform(size=(24,)), tag="membrane")
        self.count = brainstate.ShortTermState(jnp.zeros((3,)))
        self.shared = NonBatchState(jnp.zeros((4,)))


# Filters


@pytest.mark.parametrize(
    ("the_filter", "hit"),
    [
        ("layers/*/weight", {"layers/0/weight", "layers/1/weight"}),
        ("layers/0/*", {"layers/0/weight", "layers/0/bias"}),
        ("*/bias", {"layers/0/bias", "layers/1/bias"}),
        ("scale", {"scale"}),
        ("layers/[1-9]/w*", {"layers/1/weight"}),
        ("*", {"/".join(s.path) for s in SPECS}),
        ("frozen", {"layers/0/weight", "layers/1/bias"}),
        ("fast", {"layers/1/bias"}),
        (brainstate.HiddenState, {"layers/1/bias"}),
        (NonBatchState, {"scale"}),
        (["scale", brainstate.HiddenState], {"scale", "layers/1/bias"}),
        (("scale", ["*/bias"]), {"scale", "layers/0/bias", "layers/1/bias"}),
        (..., {"/".join(s.path) for s in SPECS}),
        (True, {"/".join(s.path) for s in SPECS}),
        (lambda path, spec: path[-1] == "bias" and spec.state_class == "HiddenState", {"layers/1/bias"}),
    ],
)
def test_a_filter_of_specs(the_filter, hit):
    assert replicated([(the_filter, "replicate")]) == hit


@pytest.mark.parametrize(
    ("the_filter", "hit"),
    [
        ("weight", {"weight"}),
        ("membrane", {"v"}),
        (brainstate.ParamState, {"weight"}),
        (brainstate.State, {"weight", "v", "count", "shared"}),
        ([brainstate.HiddenState, "count"], {"v", "count"}),
        (lambda path, found: isinstance(found, brainstate.ShortTermState) and path[0] == "count", {"count"}),
        (filters.OfType(brainstate.HiddenState), {"v"}),
        (filters.PathContains("weight"), {"weight"}),
        (filters.WithTag("membrane"), {"v"}),
        (filters.Not(brainstate.ParamState), {"v", "count", "shared"}),
        (filters.Any(brainstate.ParamState, "membrane"), {"weight", "v"}),
        (filters.All(brainstate.HiddenState, "membrane"), {"v"}),
        (filters.Everything(), {"weight", "v", "count", "shared"}),
    ],
)
def test_a_filter_of_a_program(the_filter, hit):
    program = discover(Net())
    planned = plan(program, CPU, axis_size=12, rules=[(the_filter, "replicate")])
    assert {s.spec.name for s in planned.states if s.reason.startswith("rule")} == hit


@pytest.mark.parametrize(
    "nothing", ["layers/2/*", "Weight", None, False, brainstate.LongTermState, [], lambda *_: False]
)
def test_a_rule_that_matches_nothing_is_refused(nothing):
    with pytest.raises(
        PlanError, match=r"matches none of 5 states. Paths look like 'layers/0/weight'.* mend the filter"
    ):
        plan(SPECS, CPU, axis_size=12, rules=[("*", "vmap"), (nothing, "replicate")])


def test_a_filter_object_that_matches_nothing_is_refused():
    with pytest.raises(PlanError, match="matches none of 4 states"):
        plan(discover(Net()), CPU, axis_size=12, rules=[(filters.Nothing(), "replicate")])


def test_the_first_rule_that_matches_counts():
    rules = [("layers/0/*", "replicate"), ("*/weight", ("lanes", None, "model")), (..., "replicate")]
    assert placed(rules) == {
        "layers/0/weight": (None, None, None),
        "layers/0/bias": (None, None),
        "layers/1/weight": ("lanes", None, "model"),
        "layers/1/bias": (None, None),
        "scale": (None,),
    }


def test_rules_may_be_any_iterable_of_pairs():
    rules = [["scale", "replicate"], ("*/bias", ["lanes", None])]
    wanted = plan(SPECS, CPU, axis_size=12, rules=rules)
    for same in (tuple(rules), iter(rules), (r for r in rules)):
        assert plan(SPECS, CPU, axis_size=12, rules=same) == wanted


# Placements


@pytest.mark.parametrize(
    ("placement", "spec", "strategy"),
    [
        (("lanes", None, "model"), ("lanes", None, "model"), "gspmd"),
        (["lanes", "model", None], ("lanes", "model", None), "gspmd"),
        (PartitionSpec("lanes", None, "model"), ("lanes", None, "model"), "gspmd"),
        (PartitionSpec("lanes"), ("lanes", None, None), "shard_map"),
        (PartitionSpec(), ("lanes", None, None), "shard_map"),
        ((..., "model"), ("lanes", "model", None), "gspmd"),
        ((None, "lanes"), (None, "lanes", None), "gspmd"),
        ((None, None, None), (None, None, None), "vmap"),
        (("model",), ("model", None, None), "gspmd"),
        ("replicate", (None, None, None), "vmap"),
        ("vmap", (None, None, None), "vmap"),
        ("shard_map", ("lanes", None, None), "shard_map"),
        ("gspmd", ("lanes", None, None), "gspmd"),
        ("pmap", ("lanes", None, None), "pmap"),
    ],
)
def test_a_placement(placement, spec, strategy):
    planned = plan(SPECS, CPU, axis_size=12, rules=[("layers/0/weight", placement)])
    first = planned.states[0]
    assert (first.leaves[0].partition_spec, first.strategy) == (spec, strategy)
    assert "rule (layers/0/weight -> " in first.reason
    size = 12 * 16 * 24 * 4
    for name in spec:
        size //= dict(planned.mesh_axes).get(name, 1)
    assert first.leaves[0].bytes_per_device == size


def test_open_axes_are_left_to_the_planner():
    large = [state("w", 64, 4096 * 16)]
    assert placed([("w", (...,))], large) == placed([], large) == {"w": ("lanes", None, "model")}
    assert placed([("w", ("lanes", ..., None))], large) == {"w": ("lanes", "model", None)}
    assert placed([("w", (None, ..., ...))], large) == {"w": (None, None, "model")}
    assert placed([("w", (..., None, None))], large) == {"w": ("lanes", None, None)}
    assert placed([("w", (..., "lanes", ...))], large) == {"w": (None, "lanes", "model")}


def test_a_mesh_axis_may_be_called_open():
    topology = Topology("cpu", 8, (("lanes", 4), ("open", 2)))
    assert placed([("w", ("lanes", "open"))], [state("w", 8)], topology) == {"w": ("lanes", "open")}
    with pytest.raises(PlanError, match="names the mesh axis 'open'"):
        plan(SPECS, CPU, axis_size=12, rules=[("scale", "replicate"), ("*", ("lanes", "open"))])


def test_a_shared_state_can_be_split_by_what_is_not_the_lanes():
    assert placed([("scale", ("model",))])["scale"] == ("model",)
    assert placed([("scale", "gspmd")])["scale"] == (None,)


def test_reasons_of_ruled_states_say_what_splits_the_lanes():
    planned = plan(SPECS, CPU, axis_size=12, rules=[("layers/0/weight", ("model",))])
    assert "`model`=2 splits axis 0 of 12" in planned.states[0].reason
    assert "4 divide the lanes" not in planned.states[0].reason


@pytest.mark.parametrize(
    ("placement", "error", "parts"),
    [
        (("nope",), PlanError, ["'nope'", "'weight'", "float32[16,24]", "lanes=4, model=2", "Name one of these"]),
        (
            ("lanes", None, None, None),
            PlanError,
            ["'weight'", "names 4 array axes", "float32[12, 16, 24] has 3", "or fewer"],
        ),
        (
            ("lanes", "lanes"),
            ArgumentError,
            ["(layers/0/weight -> (lanes, lanes))", "a mesh axis twice", "One mesh axis"],
        ),
        (("lanes", ("model",)), ArgumentTypeError, ["('model',) is a tuple", "Name one mesh axis per array axis"]),
        (PartitionSpec(("lanes", "model")), ArgumentTypeError, ["is a tuple", "Name one mesh axis"]),
        (("lanes", 1), ArgumentTypeError, ["1 is a int"]),
        (3, ArgumentTypeError, ["placement is a int", "Use 'replicate'"]),
        (None, ArgumentTypeError, ["placement is a NoneType"]),
        ({}, ArgumentTypeError, ["placement is a dict"]),
        ("magic", ArgumentError, ["'magic' is not known", "'shard_map'"]),
        ("", ArgumentError, ["'' is not known"]),
        ("lanes", ArgumentError, ["'lanes' is not known", "mesh axes per array axis"]),
    ],
)
def test_a_placement_that_cannot_be_is_refused(placement, error, parts):
    with pytest.raises(error) as caught:
        plan(SPECS, CPU, axis_size=12, rules=[("layers/0/weight", placement)])
    assert type(caught.value) is error
    for part in ["layers/0/weight", *parts]:
        assert part in str(caught.value)


def test_a_placement_that_does_not_divide_is_refused_with_the_sizes():
    with pytest.raises(PlanError) as caught:
        plan([state("w", 7, 24)], CPU, axis_size=8, rules=[("w", (None, "lanes"))])
    for part in ("does not divide ('w',)", "axis 1 of float32[8, 7, 24]", "size=7", "'lanes'=8", "Split another axis"):
        assert part in str(caught.value)


def test_a_rule_that_fits_one_mesh_only_leads_to_that_mesh():
    planned = plan([state("w", 9)], Topology("cpu", 6), axis_size=1, rules=[("w", (None, "model"))])
    assert dict(planned.mesh_axes) == {"lanes": 1, "copies": 2, "model": 3}
    assert "does not divide" in planned.rejected[0].reason


@pytest.mark.parametrize("placement", [("lanes",), "shard_map", "pmap"])
def test_lanes_of_a_shared_state_cannot_be_split(placement):
    for specs in (SPECS, discover(Net())):
        with pytest.raises(PlanError) as caught:
            plan(specs, CPU, axis_size=12, rules=[(NonBatchState, placement)])
        for part in ("contradicts", "NonBatchState, float32[4]", "out axis None", "'replicate'"):
            assert part in str(caught.value)
    fixed = plan(SPECS, CPU, axis_size=12, rules=[("scale", "replicate"), (NonBatchState, placement)])
    assert fixed.states[-1].strategy == "vmap"


def test_a_value_on_the_host_cannot_be_split():
    spec = StateSpec(("n",), "NonBatchState", (LeafSpec((4,), "int64", 8, False, False, True),), None)
    with pytest.raises(PlanError, match=r"cannot split .*int64\[4\].*stays on the host. Make it by jax.numpy"):
        plan([spec], CPU, axis_size=12, rules=[("n", ("model",))])


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (3, "rules is a int"),
        (None, "rules is a NoneType"),
        ("replicate", "rules is a str"),
        ({"w": "replicate"}, "rules is a dict"),
        ([3], "rule 3 is no pair"),
        (["ab"], "rule 'ab' is no pair"),
        (("*", "replicate"), r"rule '\*' is no pair"),
        ([("*",)], "is no pair"),
        ([("*", "replicate", 1)], "is no pair"),
        ([(3, "replicate")], "filter 3 is a int"),
        ([([3.5], "replicate")], "filter 3.5 is a float"),
        ([(b"*", "replicate")], "is a bytes"),
    ],
)
def test_rules_of_the_wrong_type_are_refused(rules, message):
    with pytest.raises(ArgumentTypeError, match=message):
        plan(SPECS, CPU, axis_size=12, rules=rules)


def test_of_the_meshes_the_one_with_the_fewest_bytes_is_taken_rules_included():
    specs = [state("w", 5 * MIB), state("v", 3 * MIB // 4)]
    topology = Topology("cpu", 15)
    planned = plan(specs, topology, axis_size=1, rules=[("w", "replicate")])
    best = plan(specs[1:], topology, axis_size=1).bytes_per_device + 5 * MIB * 4
    assert planned.bytes_per_device == best, [(o.mesh_axes, o.bytes_per_device) for o in planned.rejected]


def test_gspmd_as_asked_is_for_every_batched_state():
    for topology in (CPU, Topology("cpu", 8, (("lanes", 8),))):
        planned = plan(SPECS, topology, axis_size=16, strategy="gspmd")
        assert {s.strategy for s in planned.states if s.spec.out_axis is not None} == {"gspmd"}


# Remainders


@pytest.mark.parametrize("remainder", ["factor", "replicate", "pad", "error"])
def test_lanes_that_divide_have_no_remainder(remainder):
    planned = plan(SPECS, CPU, axis_size=16, remainder=remainder)
    assert (dict(planned.mesh_axes), planned.padded_axis_size, planned.remainder) == ({"lanes": 8}, 16, remainder)
    assert planned.states[0].leaves[0].partition_spec == ("lanes", None, None)


def test_remainder_factor_splits_by_the_largest_common_factor():
    planned = plan(SPECS, CPU, axis_size=12)
    assert (dict(planned.mesh_axes), planned.lanes_per_device) == ({"lanes": 4, "model": 2}, 3)


def test_remainder_replicate_holds_all_on_every_device():
    planned = plan(SPECS, CPU, axis_size=12, remainder="replicate")
    assert {s.strategy for s in planned.states} == {"vmap"}
    assert not any(any(leaf.partition_spec) for s in planned.states for leaf in s.leaves)
    assert planned.bytes_per_device == 12 * 4 * (16 * 24 + 24 + 24 * 8 + 8) + 16
    assert "12 lanes do not divide by 8" in planned.reason


def test_remainder_pad_computes_more_and_splits_another_axis():
    planned = plan(SPECS, CPU, axis_size=12, remainder="pad")
    assert (dict(planned.mesh_axes), planned.padded_axis_size) == ({"lanes": 8}, 16)
    assert planned.states[0].leaves[0].partition_spec == (None, None, "lanes")
    assert "16 lanes computed, 4 of them cut off" in planned.states[0].reason
    assert planned.states[-1].leaves[0].partition_spec == (None,)


def test_remainder_pad_is_refused_where_the_result_cannot_be_placed():
    with pytest.raises(PlanError) as caught:
        plan([*SPECS, state("odd", 3)], CPU, axis_size=12, remainder="pad")
    for part in ("cannot place ('odd',)", "axis_size=12", "as 16 over 8 devices", "float32[12, 3]", "axis_size=16"):
        assert part in str(caught.value)
    assert plan([*SPECS, state("odd", 3)], CPU, axis_size=16, remainder="pad").lane_shards == 8
    assert plan([*SPECS, state("odd", 3)], CPU, axis_size=12, remainder="factor").lane_shards == 4
    assert plan([*SPECS, state("odd", 3)], CPU, axis_size=12, remainder="pad", rules=[("odd", "replicate")])


@pytest.mark.parametrize("topology", [CPU, Topology("cpu", 8, (("lanes", 8),)), Topology("cpu", 16, None, 4)])
@pytest.mark.parametrize("axis_size", [1, 3, 12, 17])
def test_remainder_error_names_the_nearest_numbers_of_lanes(topology, axis_size):
    with pytest.raises(
        PlanError, match=f"axis_size={axis_size} is no multiple of devices={topology.devices}"
    ) as caught:
        plan(SPECS, topology, axis_size=axis_size, remainder="error")
    sizes = [int(n) for n in re.findall(r"axis_size=(\d+)", str(caught.value).partition("Use ")[2])]
    assert sizes
    for size in sizes:
        assert plan(SPECS, topology, axis_size=size, remainder="error").lane_shards == topology.devices
    assert plan(SPECS, topology, axis_size=axis_size, remainder="factor")


# Budgets


@pytest.mark.parametrize(
    ("budget", "size"),
    [
        ("12GiB", 12 << 30),
        (" 12 GiB ", 12 << 30),
        ("12gib", 12 << 30),
        ("1.5MiB", 3 * MIB // 2),
        ("3MB", 3_000_000),
        ("4096", 4096),
        ("1000000B", 1_000_000),
        (12 << 30, 12 << 30),
        (100_000, 100_000),
        ("unlimited", None),
        (None, None),
    ],
)
def test_a_budget_is_read(budget, size):
    assert plan([state("v", 2)], CPU, axis_size=8, memory_budget=budget).memory_budget == size


@pytest.mark.parametrize(
    "budget", [0, -1, "-1", "0", "0.5", "", "12 parsecs", "GiB", "nan", "inf", "none", "Unlimited!"]
)
def test_a_budget_that_is_nonsense_is_refused(budget):
    with pytest.raises(ArgumentError, match=r"memory_budget=.*(Write it like|Pass at least)"):
        plan([state("v", 2)], CPU, axis_size=8, memory_budget=budget)


@pytest.mark.parametrize("budget", [1.5, True, b"12GiB", [12], {"v": 1}])
def test_a_budget_of_the_wrong_type_is_refused(budget):
    with pytest.raises(ArgumentTypeError, match=r"memory_budget=.*Pass bytes per device"):
        plan([state("v", 2)], CPU, axis_size=8, memory_budget=budget)


@pytest.mark.parametrize("name", ["h100:4x8", "v5e:4x8", "v5p:8x16x16"])
def test_the_budget_of_a_topology_is_its_own_with_a_margin(name):
    topology = Topology.named(name)
    planned = plan([state("v", 8)], name, axis_size=8)
    assert planned.memory_budget == int(topology.usable_bytes * 0.95)
    assert plan([state("v", 8)], name, axis_size=8, memory_budget="unlimited").memory_budget is None
    assert plan([state("v", 8)], name, axis_size=8, memory_budget="1GiB").memory_budget == 1 << 30
    huge = [state("v", 1 << 45)]
    with pytest.raises(MemoryBudgetError):
        plan(huge, name, axis_size=1)
    assert plan(huge, name, axis_size=1, memory_budget="unlimited").bytes_per_device


def test_a_budget_that_just_fits_and_one_that_just_does_not():
    free = plan(SPECS, CPU, axis_size=16)
    assert plan(SPECS, CPU, axis_size=16, memory_budget=free.peak_bytes).peak_bytes == free.peak_bytes
    with pytest.raises(MemoryBudgetError):
        plan(SPECS, CPU, axis_size=16, memory_budget=1)


def test_slices_of_the_lanes_make_it_fit():
    specs = [state("v", 1000)]
    free = plan(specs, CPU, axis_size=64)
    tight = plan(specs, CPU, axis_size=64, memory_budget=free.peak_bytes - 1)
    assert [s.slices for s in free.steps] == [1]
    assert max(s.slices for s in tight.steps) > 1
    assert tight.peak_bytes < free.peak_bytes
    assert tight.bytes_per_device == free.bytes_per_device


def test_no_states_fit_every_budget():
    planned = plan([], CPU, axis_size=12, memory_budget=1)
    assert (planned.peak_bytes, planned.bytes_per_device, planned.states) == (0, 0, ())


def test_nodes_whose_model_cannot_grow_are_refused_like_all_others():
    """One device in each node, and all lanes divide: nothing is left to try over the slow network."""
    with pytest.raises(MemoryBudgetError, match="cannot place"):
        plan([state("v", 8)], Topology("cpu", 4, None, 2), axis_size=4, memory_budget=1)


def test_a_refusal_names_states_and_numbers():
    specs = [state("large", 64, 4096), state("small", 8), state("middle", 4096)]
    with pytest.raises(MemoryBudgetError) as caught:
        plan(specs, CPU, axis_size=12, memory_budget="1MiB")
    for part in (
        "cannot place ('large',) (ParamState, float32[64,4096])",
        "axis_size=12 over 8 devices",
        "mesh lanes=",
        "memory_budget=1.0 MiB",
        "large float32[64,4096] takes 1.5 MiB; middle float32[4096] takes",
        "The peak is at large",
    ):
        assert part in str(caught.value)


def refusal(specs, topology, options):
    """The refusal of a budget, if it is refused."""
    try:
        plan(specs, topology, **options)
    except MemoryBudgetError as error:
        return error
    return None


def follow(error, specs, topology, options):
    """Plan again in every way that a refusal suggests; say which they were."""
    text = str(error).rpartition("temporaries. ")[2]
    followed = []
    if found := re.search(r"Use (\d+) devices", text):
        count = int(found[1])
        assert count > topology.devices
        followed.append("devices")
        plan(specs, replace(topology, devices=count, name=None), **options)
    if found := re.search(r"axis_size=(\d+)", text):
        assert int(found[1]) < options["axis_size"]
        followed.append("axis_size")
        plan(specs, topology, **{**options, "axis_size": int(found[1])})
    if "strategy='auto'" in text:
        followed.append("strategy")
        plan(specs, topology, **{**options, "strategy": "auto"})
    raised = int(re.search(r"aise memory_budget to (\d+) bytes", text)[1])
    assert plan(specs, topology, **{**options, "memory_budget": raised}).peak_bytes <= raised
    return [*followed, "budget"]


@settings(max_examples=250, deadline=None, derandomize=True)
@given(
    shapes=st.lists(
        st.tuples(st.integers(1, 12), st.sampled_from([1, 8, 1024, 1 << 15, 3 << 13])), min_size=1, max_size=4
    ),
    devices=st.integers(1, 16),
    nodes=st.booleans(),
    axis_size=st.integers(1, 64),
    share=st.integers(1, 99),
    remainder=st.sampled_from(["factor", "factor", "replicate"]),
)
def test_what_a_refusal_suggests_works(shapes, devices, nodes, axis_size, share, remainder):
    specs = [state(str(i), *shape) for i, shape in enumerate(shapes)]
    topology = Topology("cpu", devices, None, devices // 2 if nodes and devices % 2 == 0 else None)
    options = {"axis_size": axis_size, "remainder": remainder}
    options["memory_budget"] = max(1, plan(specs, topology, **options).peak_bytes * share // 100)
    if error := refusal(specs, topology, options):
        assert "budget" in follow(error, specs, topology, options)


def test_more_devices_fewer_lanes_and_a_larger_budget_are_suggested_where_they_help():
    specs = [state("w", 64, 4096)]
    options = {"axis_size": 64, "memory_budget": "6MiB"}
    with pytest.raises(MemoryBudgetError) as caught:
        plan(specs, Topology("cpu", 4), **options)
    assert follow(caught.value, specs, Topology("cpu", 4), options) == ["devices", "axis_size", "budget"]


def test_the_devices_that_a_refusal_suggests_can_be_named():
    specs = [state("w", 1 << 34)]
    with pytest.raises(MemoryBudgetError, match=r"Use \d+ devices") as caught:
        plan(specs, "h100:8", axis_size=8)
    count = int(re.search(r"Use (\d+) devices", str(caught.value))[1])
    assert plan(specs, f"h100:{count // 8}x8", axis_size=8).peak_bytes


@pytest.mark.parametrize("strategy", ["shard_map", "vmap", "gspmd"])
@pytest.mark.parametrize("budget", ["1MiB", "8MiB", "100MiB"])
def test_another_strategy_is_suggested_only_where_it_helps(strategy, budget):
    specs = [state("w", MIB)]
    options = {"axis_size": 8, "memory_budget": budget, "strategy": strategy}
    if error := refusal(specs, CPU, options):
        follow(error, specs, CPU, options)


def test_another_strategy_is_suggested_without_a_stray_comma():
    specs = [state("w", 64, MIB)]
    error = refusal(specs, CPU, {"axis_size": 12, "memory_budget": "1000MiB", "strategy": "vmap"})
    assert "strategy='auto'" in str(error)
    assert ",," not in str(error)


def test_other_meshes_are_listed_with_what_they_cost():
    planned = plan([state("w", 64, 4096)], CPU, axis_size=12)
    first = planned.rejected[0]
    assert (dict(first.mesh_axes), first.bytes_per_device) == ({"lanes": 4, "copies": 2, "model": 1}, 3 * MIB)
    assert "not lanes=4 x copies=2 x model=1: leaves 3.0 MiB on a device" in str(planned)


def test_meshes_that_did_not_fit_are_listed_with_their_peak():
    specs = [state("w", 16, 4096 * 16)]
    free = plan(specs, CPU, axis_size=100)
    tight = plan(specs, CPU, axis_size=100, memory_budget="55MiB")
    assert dict(tight.mesh_axes) != dict(free.mesh_axes)
    first = tight.rejected[0]
    assert first.mesh_axes == free.mesh_axes
    assert 55 << 20 < first.peak_bytes < free.peak_bytes
    assert "does not fit memory_budget=" in first.reason


# Plans as text

PLANS = [
    lambda: plan(SPECS, CPU, axis_size=12),
    lambda: plan(SPECS, "h100:2x4", axis_size=6, rules=[("*/weight", (..., None))]),
    lambda: plan(SPECS, "2xv5e:2x4", axis_size=3, memory_budget="1GiB", numerics="fused"),
    lambda: plan(SPECS, CPU, axis_size=12, remainder="pad"),
    lambda: plan(SPECS, Topology("cpu", 1, ()), axis_size=5),
    lambda: plan([], CPU, axis_size=5),
    lambda: plan(discover(Net()), CPU, axis_size=12, rules=[(filters.OfType(brainstate.HiddenState), "replicate")]),
]


@pytest.mark.parametrize("make", PLANS)
def test_a_plan_survives_its_text(make):
    planned = make()
    again = InitPlan.from_json(planned.to_json())
    assert again == planned
    assert again.program is None
    assert again.to_json() == planned.to_json()
    assert again.fingerprint == planned.fingerprint
    assert str(again) == str(planned)


def test_different_plans_have_different_fingerprints():
    assert len({make().fingerprint for make in PLANS}) == len(PLANS)


def changed(**changes):
    data = {**json.loads(plan(SPECS, CPU, axis_size=12).to_json()), **changes}
    return json.dumps({k: v for k, v in data.items() if v is not ...})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "this is no plan"),
        ("plan", "this is no plan"),
        ("{", "this is no plan"),
        ("[]", "version=None"),
        ("3", "version=None"),
        ("null", "version=None"),
        ("{}", "version=None"),
        (changed(version=1), r"version=1, this shardinit reads version=\d+. Plan again"),
        (changed(version="2"), "version=2"),
        (changed(states=...), "not complete: states: Field required"),
        (changed(axis_size="many"), "axis_size"),
        (changed(states=3), "states"),
        (changed(topology={"platform": "cpu"}), r"topology\.devices: Field required"),
        (changed(topology={"platform": "cpu", "devices": 0}), "devices=0"),
        (changed(numerics="fast"), "numerics"),
    ],
)
def test_a_text_that_is_no_plan_is_refused(text, message):
    with pytest.raises(ArgumentError, match=message):
        InitPlan.from_json(text)


@pytest.mark.parametrize("text", [None, 3, {}])
def test_what_is_no_text_is_refused_by_its_type(text):
    with pytest.raises(ArgumentTypeError):
        InitPlan.from_json(text)


FINGERPRINT = """
from shardinit import LeafSpec, StateSpec, Topology, plan
leaf = lambda i: LeafSpec((i, 4096), "float32", 4)
specs = [StateSpec(("a", str(i)), "ParamState", (leaf(i),), 0, ("t", "u")) for i in range(50)]
rules = [("a/1*", ("lanes", None)), (["a/3", "a/4"], "replicate"), ("u", "gspmd")]
for topology, options in (
    (Topology("cpu", 8), {"axis_size": 12}),
    ("h100:4x8", {"axis_size": 12, "memory_budget": "1GiB"}),
    ("2xv5e:4x4", {"axis_size": 60, "remainder": "pad"}),
    (Topology("cpu", 8), {"axis_size": 12, "rules": rules}),
):
    print(plan(specs, topology, **options).fingerprint)
"""


def test_fingerprints_are_the_same_in_every_process():
    found = set()
    for seed in ("0", "1", "4242"):
        env = {"JAX_PLATFORMS": "none_such", "PYTHONHASHSEED": seed, "PATH": "", "HOME": "/tmp"}
        done = subprocess.run([sys.executable, "-c", FINGERPRINT], env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        found.add(done.stdout)
    assert len(found) == 1
    assert len(set(found.pop().split())) == 4


# Scale

MANY, DEVICES = 100_000, 8192

SCALE = """
import resource, sys, time
from shardinit import LeafSpec, StateSpec, Topology, plan
kind, axis_size = sys.argv[1], int(sys.argv[2])
shape = (lambda i: (i + 1, 8)) if kind == "distinct" else (lambda i: (512, 8))
specs = [StateSpec(("layers", str(i)), "ParamState", (LeafSpec(shape(i), "float32", 4),)) for i in range(100_000)]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began = time.perf_counter()
planned = plan(specs, Topology("cpu", 8192), axis_size=axis_size)
seconds = time.perf_counter() - began
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(before, after, seconds, len(planned.states), planned.bytes_per_device, dict(planned.mesh_axes))
"""


@pytest.mark.parametrize("kind", ["distinct", "equal"])
@pytest.mark.parametrize("axis_size", [DEVICES * 4, 12])
def test_a_hundred_thousand_states_on_thousands_of_devices_take_little_memory(kind, axis_size):
    command = [sys.executable, "-c", SCALE, kind, str(axis_size)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    before, after, _, states, held = done.stdout.split(maxsplit=5)[:5]
    assert int(states) == MANY
    assert int(after) - int(before) < 600 * 1024, f"planning took {(int(after) - int(before)) >> 10} MiB"
    sizes = sum((i + 1 if kind == "distinct" else 512) * 8 * 4 for i in range(MANY))
    if axis_size == DEVICES * 4:
        assert int(held) == 4 * sizes
    else:
        assert 12 * sizes // DEVICES <= int(held) <= 12 * sizes
