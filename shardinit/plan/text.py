"""A plan as text: the table of states, the totals, the mesh."""

import io
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from shardinit.plan.init_plan import InitPlan, StatePlan

MOST_ROWS = 40
MOST_LANES_DRAWN = 256
LONGEST_KEY = 16
LONGEST_NAME = 36


def size_text(size: float) -> str:
    """Bytes for people: 1.5 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError


def spec_text(partition_spec: tuple[str | None, ...]) -> str:
    """Write a PartitionSpec without its trailing Nones: P('lanes')."""
    names = list(partition_spec)
    while names and names[-1] is None:
        names.pop()
    return f"P({', '.join(map(repr, names))})"


def plan_table(plan: "InitPlan") -> Table:
    """One row per distinct kind of state, largest first; equal ones are counted."""
    rows: dict[Any, tuple[StatePlan, int]] = {}
    for state in plan.states:
        shape = ", ".join(map(str, state.spec.leaves)) or "-"
        key = (
            _family(state.spec.path),
            state.spec.state_class,
            shape,
            state.spec.out_axis,
            state.strategy,
            state.leaves,
        )
        first, count = rows.get(key, (state, 0))
        rows[key] = (first, count + 1)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column, least in (("state", 16), ("class", 11), ("one lane", 16), ("axis", 4), ("strategy", 9)):
        table.add_column(column, overflow="fold", min_width=least)
    table.add_column("PartitionSpec", overflow="fold", min_width=11)
    table.add_column("per device", justify="right", no_wrap=True, min_width=10)
    ordered = sorted(rows.items(), key=lambda item: -item[1][0].bytes_per_device * item[1][1])
    for (name, state_class, shape, axis, strategy, leaves), (state, count) in ordered[:MOST_ROWS]:
        specs = list(dict.fromkeys(spec_text(leaf.partition_spec) for leaf in leaves))
        label = f"{name} ×{count}" if count > 1 else _name(state.spec.path)
        total = size_text(state.bytes_per_device * count)
        table.add_row(label, state_class, shape, str(axis), strategy, ", ".join(specs) or "-", total)
    if len(ordered) > MOST_ROWS:
        rest = ordered[MOST_ROWS:]
        size = sum(first.bytes_per_device * count for _, (first, count) in rest)
        table.add_row(f"... and {sum(c for _, (_, c) in rest)} more", "", "", "", "", "", size_text(size))
    return table


def _family(path: tuple[str, ...]) -> str:
    return _name(tuple("*" if part.isdigit() else part for part in path))


def _name(path: tuple[str, ...]) -> str:
    """The path as text, long keys of dictionaries cut in the middle."""
    short = [p if len(p) <= LONGEST_KEY else f"{p[: LONGEST_KEY // 2]}…{p[-LONGEST_KEY // 3 :]}" for p in path]
    return cut_name(".".join(short)) or "(not held by the module)"


def cut_name(name: str) -> str:
    """Cut a long name in the middle."""
    text = name.replace(" ", "")
    return text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME // 2]}…{text[-LONGEST_NAME // 2 :]}"


def mesh_picture(plan: "InitPlan", devices: list[str] | None = None) -> str:
    """Draw which lanes are on which device, one line per device."""
    axes = dict(plan.mesh_axes) or {"device": 1}
    shape = tuple(axes.values())
    count = 1
    for size in shape:
        count *= size
    lines = []
    for number in range(min(count, 64)):
        place, rest = {}, number
        for name, size in reversed(axes.items()):
            rest, place[name] = divmod(rest, size)
        shard = place.get(plan.lanes_axis or "", 0)
        first, lanes = shard * plan.lanes_per_device, plan.lanes_per_device
        bar = ""
        if plan.axis_size <= MOST_LANES_DRAWN:
            width = min(plan.axis_size, 64)
            a, b = first * width // plan.axis_size, max((first + lanes) * width // plan.axis_size, 1)
            bar = " " + "·" * a + "█" * max(b - a, 1) + "·" * (width - max(b, a + 1))
        others = ", ".join(f"{n} {place[n]}" for n in reversed(place) if n not in (plan.lanes_axis, "device"))
        device = devices[number] if devices else f"device {number}"
        last = first + lanes - 1
        span = f"lane {first}" if lanes == 1 else f"lanes {first}-{last}"
        lines.append(f"  {device:<10}{bar} {span}{f' ({others})' if others else ''}")
    if count > 64:
        lines.append(f"  ... and {count - 64} more devices")
    return "\n".join(lines)


def plan_text(plan: "InitPlan") -> str:
    """The plan as a table, its totals and its mesh."""
    head = f"{len(plan.states)} states, axis_size={plan.axis_size}, numerics={plan.numerics}"
    total = f"{size_text(plan.bytes_per_device)} per device ({plan.bytes_per_device} bytes)"
    return f"{head}\n{plan.reason}\n\n{rendered(plan_table(plan))}\n{total}\n{mesh_picture(plan)}"


def rendered(table: Table, width: int = 120) -> str:
    """Draw a table as plain text."""
    console = Console(file=io.StringIO(), width=width, no_color=True)
    console.print(table)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in lines if line.strip())
