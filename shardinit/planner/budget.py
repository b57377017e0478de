"""The memory budget: read from the caller, and what to say when nothing fits it."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from shardinit.errors import ArgumentError, ArgumentTypeError, MemoryBudgetError
from shardinit.spec.plan import InitPlan
from shardinit.spec.topology import Topology
from shardinit.wording import counted, kind_of, mesh_text, size_text

if TYPE_CHECKING:
    from shardinit.planner.search import Search

# Share of a device's usable memory that a plan may take: the rest is the runtime's, and code.
OWN_SHARE = 0.95
MOST_LISTED = 3
MOST_DOUBLINGS = 8


def read_budget(budget: Any, topology: Topology) -> int | None:
    """Bytes per device: the caller's, or the topology's own with a margin; None is no limit."""
    if budget is None:
        return None if topology.usable_bytes is None else int(topology.usable_bytes * OWN_SHARE)
    if budget == "unlimited":
        return None
    if isinstance(budget, bool) or not isinstance(budget, (int, str)):
        raise ArgumentTypeError(
            f"memory_budget={budget!r} is {kind_of(budget)}. Pass bytes per device, such as 12 * 2**30 or '12GiB'."
        )
    from pydantic import ByteSize, TypeAdapter, ValidationError

    try:
        size = int(TypeAdapter(ByteSize).validate_python(budget))
    except ValidationError:
        raise ArgumentError(
            f"memory_budget={budget!r} is not a number of bytes. Write it like 12 * 2**30, '12GiB' or 'unlimited'."
        ) from None
    if size < 1:
        raise ArgumentError(f"memory_budget={budget!r} leaves nothing. Pass at least 1 byte per device.")
    return size


def does_not_fit(search: "Search") -> MemoryBudgetError:
    """Say which states are the largest, what they cost, and what would make it fit."""
    best = min(search.all(), key=lambda p: p.peak_bytes)
    budget = search.options.memory_budget or 0
    largest = sorted(best.states, key=lambda s: -s.bytes_per_device)
    first = largest[0]
    costs = "; ".join(
        f"{s.spec.name} {', '.join(map(str, s.spec.leaves))} takes {size_text(s.bytes_per_device)}"
        for s in largest[:MOST_LISTED]
    )
    more = f" and {len(largest) - MOST_LISTED} more" if len(largest) > MOST_LISTED else ""
    worst = max(best.steps, key=lambda s: s.peak)
    where = f"{counted(search.topology.devices, 'device')}, mesh {mesh_text(best.mesh_axes)}"
    return MemoryBudgetError(
        f"cannot place {first.spec} within the budget: needs {size_text(best.peak_bytes)} per device "
        f"(axis_size={best.axis_size} over {where}), "
        f"memory_budget={size_text(budget)}. The largest per device: {costs}{more}. The peak is at {worst.state}: "
        f"{size_text(worst.peak - worst.temporaries)} held and {size_text(worst.temporaries)} of temporaries. "
        f"{_what_fits(search, best)}"
    )


def _what_fits(search: "Search", best: InitPlan) -> str:
    ways = []
    devices = _enough_devices(search)
    if devices is not None:
        ways.append(counted(devices, "device"))
    lanes = _few_enough_lanes(search, best)
    if lanes is not None:
        ways.append(f"axis_size={lanes}")
    if search.options.strategy != "auto" and _fits(search.with_options(strategy="auto")):
        ways.append("strategy='auto'")
    lead = f"Use {', or '.join(ways)}, or raise" if ways else "Raise"
    return f"{lead} memory_budget to {best.peak_bytes} bytes{_splits(best)}."


def _splits(best: InitPlan) -> str:
    """Say where a split is in the way."""
    model = dict(best.mesh_axes).get("model", 1)
    largest = max(best.states, key=lambda s: s.bytes_per_device)
    if model > 1 and largest.strategy != "gspmd":
        sizes = ", ".join(str(n) for leaf in largest.spec.leaves for n in leaf.shape)
        return f"; no axis of {largest.spec.name} ({sizes}) is a multiple of model={model}, another size would split"
    return ""


def _enough_devices(search: "Search") -> int | None:
    """Double the devices until it fits."""
    topology = search.topology
    if topology.mesh_axes is not None:
        return None
    for doubling in range(1, MOST_DOUBLINGS + 1):
        nodes = topology.fast_devices if topology.platform == "gpu" else topology.fast
        larger = replace(topology, devices=topology.devices << doubling, fast=nodes, name=None)
        if _fits(replace(search, topology=larger)):
            return larger.devices
    return None


def _fits(search: "Search") -> bool:
    try:
        return search.best() is not None
    except ValueError:  # the lanes don't divide as the strategy needs
        return False


def _few_enough_lanes(search: "Search", best: InitPlan) -> int | None:
    """Find the largest smaller number of lanes that fits, in steps of what the mesh or all devices divide."""
    found = 0
    for step in {best.lane_shards, search.topology.devices}:
        low, high = 0, -(-best.axis_size // step)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if _fits(search.with_options(axis_size=middle * step)) else (low, middle)
        found = max(found, low * step)
    return found or None
