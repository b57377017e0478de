"""Memory budgets: read, kept, and refused with what would fit."""

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardinit import (
    ArgumentError,
    ArgumentTypeError,
    MemoryBudgetError,
    Topology,
    plan,
)
from tests.planner.states import CPU, MIB, SPECS, state


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
    assert (dict(first.mesh_axes), first.bytes_per_device) == ({"lanes": 6}, 2 * MIB)
    assert "not lanes=6: would leave 2.0 MiB and 2 lanes on a device" in str(planned)


def test_meshes_that_did_not_fit_are_listed_with_their_peak():
    specs = [state("w", 16, 4096 * 16)]
    free = plan(specs, CPU, axis_size=100)
    tight = plan(specs, CPU, axis_size=100, memory_budget="55MiB")
    assert dict(tight.mesh_axes) != dict(free.mesh_axes)
    first = tight.rejected[0]
    assert first.mesh_axes == free.mesh_axes
    assert 55 << 20 < first.peak_bytes < free.peak_bytes
    assert "does not fit memory_budget=" in first.reason
