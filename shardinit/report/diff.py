"""What moved between two plans."""

from collections import Counter
from collections.abc import Iterable

from rich import box
from rich.table import Table

from shardinit.report.plan import MOST_ROWS, family_name, rendered, short_names, specs_text
from shardinit.report.terminal import for_terminal
from shardinit.spec.plan import InitPlan, StatePlan
from shardinit.wording import counted, mesh_text, size_text


def diff_text(before: InitPlan, after: InitPlan) -> str:
    """Write what differs: the whole, then the states that came, went or moved, alike ones counted.

    Examples
    --------
    >>> from shardinit import LeafSpec, StateSpec, plan
    >>> specs = [StateSpec(("v",), "ShortTermState", (LeafSpec((8,), "float32", 4),))]
    >>> print(diff_text(plan(specs, "cpu:8", axis_size=16), plan(specs, "cpu:8", axis_size=16)))
    the plans are the same
    """
    whole = [f"{name}: {a} -> {b}" for name, a, b in _whole(before, after) if a != b]
    rows = list(_moved(before, after))
    if not whole and not rows:
        return "the plans are the same"
    if not rows:
        return "\n".join([*whole, "no state moved"])
    found = Counter(rows)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("state", "before", "after"):
        table.add_column(column, overflow="fold", min_width=16)
    names = short_names(name for name, _, _ in found)
    for (name, old, new), count in list(found.items())[:MOST_ROWS]:
        table.add_row(for_terminal(f"{names[name]} ×{count}" if count > 1 else names[name]), old, new)
    if len(found) > MOST_ROWS:
        table.add_row(f"... and {sum(list(found.values())[MOST_ROWS:])} more", "", "")
    differ = "1 state differs" if len(rows) == 1 else f"{len(rows)} states differ"
    return "\n".join([*whole, differ, rendered(table)])


def _whole(before: InitPlan, after: InitPlan) -> Iterable[tuple[str, str, str]]:
    def budget(plan: InitPlan) -> str:
        return "none" if plan.memory_budget is None else size_text(plan.memory_budget)

    def topology(plan: InitPlan) -> str:
        return plan.topology.name or counted(plan.topology.devices, f"{plan.topology.platform} device")

    for name, read in (
        ("axis_size", lambda p: str(p.axis_size)),
        ("topology", topology),
        ("mesh", lambda p: mesh_text(p.mesh_axes)),
        ("numerics", lambda p: p.numerics),
        ("remainder", lambda p: p.remainder),
        ("memory_budget", budget),
        ("bytes per device", lambda p: f"{p.bytes_per_device} ({size_text(p.bytes_per_device)})"),
        ("peak", lambda p: f"{p.peak_bytes} ({size_text(p.peak_bytes)})"),
        ("slices", lambda p: str(max((s.slices for s in p.steps), default=1))),
    ):
        yield name, read(before), read(after)


def _moved(before: InitPlan, after: InitPlan) -> Iterable[tuple[str, str, str]]:
    old, new = _by_place(before), _by_place(after)
    for key in dict.fromkeys([*old, *new]):
        a, b = old.get(key), new.get(key)
        if a is None or b is None or _place(a) != _place(b):
            yield family_name(key[0]), _place(a) if a else "-", _place(b) if b else "-"


def _by_place(plan: InitPlan) -> dict[tuple[tuple[str, ...], int], StatePlan]:
    """States by path, and by their number among those of one path."""
    seen: Counter[tuple[str, ...]] = Counter()
    found = {}
    for state in plan.states:
        found[state.spec.path, seen[state.spec.path]] = state
        seen[state.spec.path] += 1
    return found


def _place(state: StatePlan) -> str:
    lane = ", ".join(map(str, state.spec.leaves)) or "-"
    return f"{lane} {state.strategy} {specs_text(state)} {size_text(state.bytes_per_device)}"
