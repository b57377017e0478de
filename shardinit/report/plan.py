"""A plan as text: the table of states, the totals, memory, the mesh, what was rejected."""

import io
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from shardinit.report.terminal import for_terminal
from shardinit.spec.plan import InitPlan, StatePlan
from shardinit.wording import counted, mesh_text, path_text, size_text

MOST_ROWS = 40
MOST_DEVICES = 16
MOST_LANES_DRAWN = 256
LONGEST_NAME = 60
BAR = 40


def spec_text(partition_spec: tuple[str | None, ...]) -> str:
    """Write a PartitionSpec without its trailing Nones: P('lanes')."""
    names = list(partition_spec)
    while names and names[-1] is None:
        names.pop()
    return f"P({', '.join(map(repr, names))})"


def specs_text(state: StatePlan) -> str:
    """The PartitionSpecs of a state's arrays, each once."""
    return ", ".join(dict.fromkeys(spec_text(leaf.partition_spec) for leaf in state.leaves)) or "-"


@dataclass(frozen=True, slots=True)
class Group:
    """States that are planned alike and differ in numbers of their paths alone.

    Attributes
    ----------
    name
        Their path, numbers as ``*`` where there are several.
    short
        The name, cut in the middle if it is long.
    first
        One of them.
    count
        How many there are.
    whole_bytes, bytes_per_device
        Of all of them: in all lanes together, and on one device.
    """

    name: str
    short: str
    first: StatePlan
    count: int
    whole_bytes: int
    bytes_per_device: int


def groups_of(plan: InitPlan) -> list[Group]:
    """Put alike states together; first those where splitting saves a device most."""
    found: dict[Any, list[StatePlan]] = {}
    for state in plan.states:
        spec = state.spec
        key = (family_name(spec.path), spec.state_class, spec.kind, spec.leaves, spec.out_axis)
        found.setdefault((*key, state.strategy, state.leaves, state.reason), []).append(state)
    names = {key: key[0] if len(states) > 1 else states[0].spec.name for key, states in found.items()}
    short = short_names(names.values())
    groups = []
    for key, states in found.items():
        first, count = states[0], len(states)
        name = names[key]
        whole = sum(
            math.prod(leaf.shape) * spec.itemsize for leaf, spec in zip(first.leaves, first.spec.leaves, strict=True)
        )
        groups.append(Group(name, short[name], first, count, whole * count, first.bytes_per_device * count))
    return sorted(groups, key=lambda g: (g.bytes_per_device - g.whole_bytes, -g.bytes_per_device))


def plan_table(plan: InitPlan) -> Table:
    """One row per group of states; a long list is folded."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column, least in (("state", 16), ("class", 11), ("one lane", 16), ("axis", 4), ("strategy", 9)):
        table.add_column(column, overflow="fold", min_width=least)
    table.add_column("PartitionSpec", overflow="fold", min_width=11)
    table.add_column("in all", justify="right", no_wrap=True, min_width=8)
    table.add_column("per device", justify="right", no_wrap=True, min_width=10)
    groups = groups_of(plan)
    shown = groups[:MOST_ROWS]
    for group in shown:
        state = group.first
        label = for_terminal(f"{group.short} ×{group.count}" if group.count > 1 else group.short)
        lane = ", ".join(map(str, state.spec.leaves)) or "-"
        place = (str(state.spec.out_axis), state.strategy, specs_text(state))
        sizes = (size_text(group.whole_bytes), size_text(group.bytes_per_device))
        table.add_row(label, state.spec.state_class, lane, *place, *sizes)
    if rest := groups[MOST_ROWS:]:
        sizes = (size_text(sum(g.whole_bytes for g in rest)), size_text(sum(g.bytes_per_device for g in rest)))
        table.add_row(f"... and {sum(g.count for g in rest)} more", "", "", "", "", "", *sizes)
    return table


def family_name(path: tuple[str, ...]) -> str:
    """The path as text, its numbers as ``*``: a glob that a rule can have."""
    return path_text("*" if part.isdigit() else part for part in path)


def short_names(names: Iterable[str], most: int = LONGEST_NAME) -> dict[str, str]:
    """Cut long names in the middle, but no more than leaves different ones different."""
    short = {name: cut_name(name, most) for name in names}
    return short if len(set(short.values())) == len(short) else short_names(short, 2 * most)


def cut_name(name: str, most: int = LONGEST_NAME) -> str:
    """Cut a long name in the middle."""
    return name if len(name) <= most else f"{name[: most // 2]}…{name[-(most // 2) :]}"


def states_text(states: Iterable[StatePlan]) -> str:
    """How many states there are, as receipts count them, and arrays that init leaves outside of any State."""
    kinds = Counter(state.spec.kind == "attribute" for state in states)
    outside = f" and {counted(kinds[True], 'array')} in attributes" if kinds[True] else ""
    return f"{counted(kinds[False], 'state')}{outside}"


def reasons_text(plan: InitPlan) -> str:
    """Why states are where they are: one line per reason, with how many it holds for."""
    counts: dict[str, list[str]] = {}
    for group in groups_of(plan):
        counts.setdefault(f"{group.first.strategy}: {group.first.reason}", []).append(group.short)
    lines = [
        f"  {reason} ({', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''})"
        for reason, names in list(counts.items())[:MOST_ROWS]
    ]
    return "\n".join(lines)


def memory_text(plan: InitPlan) -> str:
    """A bar of what each device holds in the end, its peak, and its limit."""
    if not plan.steps:
        return ""
    limit = plan.memory_budget or plan.topology.usable_bytes
    worst = max(plan.steps, key=lambda step: step.peak)
    full = max(limit or 0, worst.peak, 1)
    held = max(1, round(BAR * plan.bytes_per_device / full)) if plan.bytes_per_device else 0
    peak = max(held, round(BAR * worst.peak / full))
    bar = "█" * held + "▒" * (peak - held) + "·" * (BAR - peak)
    slices = [step.slices for step in plan.steps if step.slices > 1]
    of = f" of {size_text(limit)}" if limit else ""
    text = f"  {bar} peak {size_text(worst.peak)}{of}, at {cut_name(worst.state)}"
    if slices:
        some = "1 step runs" if len(slices) == 1 else f"{len(slices)} steps run"
        text += f"; {some} in slices of the lanes, up to {max(slices)}, to fit"
    return f"{text}\n  {outside}" if (outside := outside_text(plan)) else text


def outside_text(plan: InitPlan) -> str:
    """Say what arrays from outside cost, and where most."""
    if not plan.constant_bytes:
        return ""
    most = max(plan.steps, key=lambda step: step.constants)
    return (
        f"{size_text(most.constants)} that init closes over at {cut_name(most.state)} "
        f"({most.constants} bytes) are on each device until the last piece that reads them ran"
    )


def rejected_text(plan: InitPlan) -> str:
    """What else was considered."""
    lines = []
    for other in plan.rejected:
        lines.append(f"  not {mesh_text(other.mesh_axes)}: {other.reason}")
    return "\n".join(lines)


def mesh_picture(plan: InitPlan, devices: Sequence[str] | None = None) -> str:
    """Draw which lanes are on which device, one line per device."""
    axes = dict(plan.mesh_axes) or {"device": 1}
    count = math.prod(axes.values())
    lanes = plan.lanes_per_device
    total = plan.padded_axis_size
    lines = []
    for number in range(min(count, MOST_DEVICES)):
        place, rest = {}, number
        for name, size in reversed(axes.items()):
            rest, place[name] = divmod(rest, size)
        first = place.get(plan.lanes_axis or "", 0) * lanes
        bar = ""
        if total <= MOST_LANES_DRAWN:
            width = min(total, 64)
            a, b = first * width // total, max((first + lanes) * width // total, 1)
            bar = " " + "·" * a + "█" * max(b - a, 1) + "·" * (width - max(b, a + 1))
        others = ", ".join(f"{n}={place[n]}" for n in reversed(place) if n not in (plan.lanes_axis, "device"))
        device = devices[number] if devices else f"device {number}"
        last = first + lanes - 1
        span = f"lane {first}" if lanes == 1 else f"lanes {first}-{last}"
        lines.append(f"  {device:<10}{bar} {span}{f' ({others})' if others else ''}")
    if count > MOST_DEVICES:
        lines.append(f"  ... and {counted(count - MOST_DEVICES, 'more device')}")
    return "\n".join(lines)


def plan_text(plan: InitPlan, width: int = 120) -> str:
    """The plan for people: table, reasons, totals, memory, what was rejected, the mesh."""
    where = plan.topology.name or counted(plan.topology.devices, f"{plan.topology.platform} device")
    head = f"{states_text(plan.states)}, axis_size={plan.axis_size} on {where}, numerics={plan.numerics}"
    total = f"{size_text(plan.bytes_per_device)} per device ({plan.bytes_per_device} bytes)"
    parts = [
        f"{head}\n{plan.reason}",
        rendered(plan_table(plan), width),
        reasons_text(plan),
        "\n".join(part for part in (total, memory_text(plan)) if part),
        rejected_text(plan),
        mesh_picture(plan),
    ]
    return "\n\n".join(part for part in parts if part)


def rendered(table: Table, width: int = 120) -> str:
    """Draw a table as plain text."""
    console = Console(file=io.StringIO(), width=width, no_color=True)
    console.print(table)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in lines if line.strip())
