"""Topologies by name: every form that is documented, and what is said of those that cannot be."""

import math
import re

import pytest

from shardinit import ArgumentError, ArgumentTypeError, LeafSpec, StateSpec, Topology, plan

GIB = 1 << 30
NAME = re.compile(r"(?:\d+x)?(?:cpu|gpu|a100-40|[abghtl]+[0-9]+s?|rtx[0-9]+|v4|v5e|v5p|v6e|tpu7x):[0-9x]+(?:@48GiB)?")


def suggested(error):
    """The names that a message suggests, after the one that it is about."""
    text = str(error)
    return NAME.findall(text[text.index("topology '") + 10 :].partition("'")[2])


@pytest.mark.parametrize(
    ("name", "platform", "devices", "fast"),
    [
        ("cpu:8", "cpu", 8, None),
        ("cpu:1", "cpu", 1, None),
        ("cpu:12", "cpu", 12, None),
        ("a100:4x8", "gpu", 32, 8),
        ("h100:4x8", "gpu", 32, 8),
        ("h200:4x8", "gpu", 32, 8),
        ("h100:8", "gpu", 8, None),
        ("h100:1x8", "gpu", 8, None),
        ("h100:3x2", "gpu", 6, 2),
        ("a100:1024x8", "gpu", 8192, 8),
        ("v5e:4x8", "tpu", 32, None),
        ("v5e:8x4", "tpu", 32, None),
        ("v6e:16x16", "tpu", 256, None),
        ("v5p:8x16x16", "tpu", 2048, None),
        ("v5p:16x16x8", "tpu", 2048, None),
        ("2xv5e:16x16", "tpu", 512, 256),
        ("32xv6e:16x16", "tpu", 8192, 256),
        ("4xv5p:8x16x16", "tpu", 8192, 2048),
        ("1xv5e:2x2", "tpu", 4, None),
    ],
)
def test_a_name_tells_devices_and_what_the_fast_network_joins(name, platform, devices, fast):
    found = Topology.named(name)
    assert (found.platform, found.devices, found.fast, found.mesh_axes) == (platform, devices, fast, None)
    assert found.fast_devices == (fast or devices)
    assert found.name == name
    assert plan([StateSpec(("v",), "S", (LeafSpec((8,), "float32", 4),))], name, axis_size=8).topology == found


@pytest.mark.parametrize(
    ("name", "published", "usable"),
    [
        ("cpu:8", None, None),
        ("a100:4x8", 85_100_068_864, int(85_100_068_864 * 0.75)),
        ("h100:4x8", 84_942_979_072, int(84_942_979_072 * 0.75)),
        ("h200:4x8", 151_397_597_184, int(151_397_597_184 * 0.75)),
        ("v5e:4x8", 16 * GIB, int(15.75 * GIB)),
        ("v5p:8x16x16", 95 * GIB, int(95.73 * GIB)),
        ("v6e:16x16", 32 * GIB, int(31.24 * GIB)),
    ],
)
def test_a_name_tells_the_memory_of_a_device(name, published, usable):
    found = Topology.named(name)
    assert (found.bytes_per_device, found.usable_bytes) == (published, usable)


def test_names_may_be_written_in_capitals_and_with_spaces_around():
    assert Topology.named(" H100:4X8 ") == Topology.named("h100:4x8")


IMPOSSIBLE = [
    "v5e:32x32",
    "v5e:3x3",
    "v5e:4x4x4",
    "v5e:4",
    "v6e:8x32",
    "v5p:8x8",
    "v5p:4x4x5",
    "v5p:64x64x64",
    "h100:4x16",
    "h100:16",
    "h100:2x2x2",
    "a100:2x2x2",
    "h200:1x9",
    "cpu:2x2x2",
    "x100:8",
    "h10:4x8",
    "v5:4x8",
    "tpu:4x8",
    "gpu:8",
    "2xh100:8",
    "2xcpu:8",
    "0xv5e:4x8",
    "2x2xv5e:4x8",
    "v5e",
    "v5e:",
    "v5e:4x",
    "v5e:x4",
    "v5e:4x8x",
    "v5e:4*8",
    "h100:4.5",
    "cpu:eight",
    ":8",
    ":",
    "cpu:0",
    "cpu:-1",
    "cpu:0x8",
    "h100:4x0",
    "cpu: ",
    "",
    " ",
    "8",
]


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_an_impossible_name_is_refused_and_what_is_suggested_exists(name):
    with pytest.raises(ArgumentError) as caught:
        Topology.named(name)
    assert repr(name) in str(caught.value)
    names = suggested(caught.value)
    assert names, caught.value
    for other in names:
        assert Topology.named(other).devices >= 1
    with pytest.raises(ArgumentError, match="topology"):
        plan([], name, axis_size=8)


@pytest.mark.parametrize("name", ["cpu:²", "²xv5e:4x8", "v5e:²x²", "h100:4x⁸"])
def test_digits_that_are_no_numbers_are_refused_like_any_other_text(name):
    with pytest.raises(ArgumentError):
        Topology.named(name)


@pytest.mark.parametrize("name", [None, 8, b"cpu:8", ("cpu", 8), 1.5, True, Topology])
def test_a_name_that_is_no_text_is_refused_by_its_type(name):
    with pytest.raises(ArgumentTypeError, match=rf"is an? {type(name).__name__}.*'h100:4x8'"):
        Topology.named(name)


@pytest.mark.parametrize("topology", [None, 8, b"cpu:8", ("cpu", 8)])
def test_a_topology_that_is_none_is_refused_by_its_type(topology):
    with pytest.raises(ArgumentTypeError, match=f"topology is an? {type(topology).__name__}"):
        plan([], topology, axis_size=8)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("v5e:3x3", "v5e:2x4"),
        ("v5e:4x3", "v5e:4x4"),
        ("v5e:5x6", "v5e:4x8"),
        ("v6e:2x64", "v6e:8x16"),
        ("v5p:8x8", "v5p:4x4x4"),
        ("v5p:8x8x1", "v5p:4x4x4"),
        ("h100:4x16", "h100:8x8"),
        ("h100:16", "h100:2x8"),
        ("a100:1x12", "a100:2x8"),
    ],
)
def test_the_nearest_shape_is_suggested_first(name, first):
    with pytest.raises(ArgumentError) as caught:
        Topology.named(name)
    names = suggested(caught.value)
    assert names[0] == first, names
    if first.startswith("v"):
        wanted = math.prod(map(int, name.partition(":")[2].split("x")))
        distances = [abs(math.log(Topology.named(n).devices / wanted)) for n in names]
        assert distances == sorted(distances)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("x100:8", {"h100"}),
        ("h2:8", {"h20"}),
        ("v6:4x8", {"v6e"}),
        ("v5x:4x8", {"v5e", "v5p"}),
        ("cpuu:8", {"cpu"}),
    ],
)
def test_the_nearest_device_is_suggested(name, near):
    with pytest.raises(ArgumentError, match="there is no device") as caught:
        Topology.named(name)
    listed = re.search(r"Use one of (.*), such as", str(caught.value)).group(1).split(", ")
    assert near <= set(listed)


def test_more_chips_than_a_slice_has_are_several_slices():
    with pytest.raises(ArgumentError, match="a slice has at most 256 chips") as caught:
        Topology.named("v5e:32x32")
    names = suggested(caught.value)
    assert "4xv5e:16x16" in names
    assert max(Topology.named(n).devices for n in names) == 1024


@pytest.mark.parametrize(
    ("name", "wanted"), [("2xv5e:3x3", "2xv5e:2x4"), ("2xv5e:32x32", "8xv5e:16x16"), ("3xv5p:8x8", "3xv5p:4x4x4")]
)
def test_slices_that_were_asked_for_are_in_what_is_suggested(name, wanted):
    with pytest.raises(ArgumentError) as caught:
        Topology.named(name)
    assert wanted in suggested(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cpu", 0), "devices=0"),
        (("cpu", -1), "devices=-1"),
        (("cpu", 8, (("lanes", 4),)), "multiply to devices"),
        (("cpu", 8, ()), "multiply to devices"),
        (("cpu", 8, None, 3), "fast=3"),
        (("cpu", 8, None, 0), "fast=0"),
        (("cpu", 8, None, 16), "fast=16"),
    ],
)
def test_a_topology_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        Topology(*arguments)


def test_model_stays_inside_of_a_node():
    large = StateSpec(("w",), "ParamState", (LeafSpec((1 << 20,), "float32", 4),))
    assert dict(plan([large], "h100:4x8", axis_size=1).mesh_axes) == {"lanes": 1, "copies": 4, "model": 8}
    assert dict(plan([large], "2xv5e:2x2", axis_size=2).mesh_axes) == {"lanes": 2, "model": 4}
    assert dict(plan([large], Topology("cpu", 12, None, 6), axis_size=1).mesh_axes)["model"] == 2


def test_model_crosses_the_slow_network_as_a_last_resort():
    large = StateSpec(("w",), "ParamState", (LeafSpec((1 << 24,), "float32", 4),))
    topology = Topology("cpu", 16, None, 4)
    inside = plan([large], topology, axis_size=1)
    assert dict(inside.mesh_axes)["model"] == 4
    across = plan([large], topology, axis_size=1, memory_budget=inside.peak_bytes - 1)
    assert dict(across.mesh_axes)["model"] > 4
    assert ("model", 4) in [axis for other in across.rejected for axis in other.mesh_axes]


@pytest.mark.parametrize(
    ("name", "devices", "fast", "memory"),
    [
        ("l40s:2x4", 8, 4, 46068 << 20),
        ("h100-nvl:8", 8, None, 95830 << 20),
        ("H100NVL:8", 8, None, 95830 << 20),
        ("a100-40:2x16", 32, 16, 40536 << 20),
        ("gb200:18x4", 72, 4, 189471 << 20),
        ("rtx5090:2", 2, None, 32607 << 20),
        ("gb300:18x4", 72, 4, 284208 << 20),
        ("h200-nvl:8", 8, None, 143771 << 20),
        ("tpu7x:16x24x24", 2 * 144 * 64, None, 96 * GIB),
        ("tpu7x:2x2x1", 8, None, 96 * GIB),
        ("2xironwood:4x4x4", 256, 128, 96 * GIB),
        ("v4:4x4x4", 64, None, 32 * GIB),
        ("gpu:2x4@48GiB", 8, 4, 48 * GIB),
        ("cpu:8@64GiB", 8, None, 64 * GIB),
        ("h100:2x8@40GiB", 16, 8, 40 * GIB),
    ],
)
def test_devices_of_the_last_years_and_those_whose_memory_is_said(name, devices, fast, memory):
    found = Topology.named(name)
    assert (found.devices, found.fast, found.bytes_per_device) == (devices, fast, memory)
    assert found.usable_bytes == (memory if found.platform == "cpu" else found.usable_bytes) > 0


def test_memory_said_is_the_budget_of_a_plan():
    leaf = StateSpec(("v",), "S", (LeafSpec((8,), "float32", 4),))
    assert plan([leaf], "gpu:2x4@48GiB", axis_size=8).memory_budget == int(int(48 * GIB * 0.75) * 0.95)


def test_a_card_file_says_the_memory(tmp_path):
    card = tmp_path / "card.txtpb"
    card.write_text("gpu_device_info { device_memory_size: 51539607552 }")
    assert Topology.named("gpu:2x4", card=card) == Topology("gpu", 8, None, 4, 48 * GIB, 36 * GIB, "gpu:2x4")
    for wrong, why in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ArgumentError, match=f"cannot read the card .*: {why}"):
            Topology.named("gpu:2x4", card=wrong)
    for name in ("cpu:8", "v5e:4x8"):
        with pytest.raises(ArgumentError, match=r"card|TPU's memory"):
            Topology.named(name, card=card)
    with pytest.raises(ArgumentError, match="describes a GPU"):
        Topology.named("cpu:8", card=tmp_path / "none")
    card.write_text("gpu_device_info { }")
    with pytest.raises(ArgumentError, match="has no device_memory_size"):
        Topology.named("gpu:2x4", card=card)


@pytest.mark.parametrize(
    "name", ["gpu:2x4@", "gpu:2x4@many", "gpu:2x4@0", "cpu:8@-1GiB", "tpu:8@16GiB", "v5e:2x4@16GiB"]
)
def test_memory_that_cannot_be_is_refused(name):
    with pytest.raises(ArgumentError, match="topology"):
        Topology.named(name)


def test_an_unknown_card_is_told_what_to_write():
    with pytest.raises(ArgumentError, match=r"one of l40s, l4, .*'gpu:2x4@48GiB'"):
        Topology.named("l41s:2x4")
