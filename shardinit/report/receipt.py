"""Receipts and results as text."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from shardinit.report.plan import plan_table, rendered
from shardinit.spec.plan import InitPlan
from shardinit.spec.receipt import Receipt
from shardinit.wording import counted, folded, size_text


def receipt_text(receipt: Receipt) -> str:
    """What happened, in a few lines."""
    measured = receipt.measured_bytes
    held = sorted(set(measured.values()))
    span = " to ".join(dict.fromkeys(size_text(b) for b in (held[0], held[-1]))) if held else "0 B"
    equal = "equal to the plan" if held == [receipt.planned_bytes] else f"planned {size_text(receipt.planned_bytes)}"
    strategies = ", ".join(f"{count} {name}" for name, count in receipt.strategies.items())
    where = {0: "no device", 1: "one device"}.get(len(measured), f"each of {len(measured)} devices")
    made = [strategies, "the keys"] if receipt.programs > sum(receipt.strategies.values()) else [strategies]
    kinds = ", and ".join(filter(None, made))
    lines = [
        f"{counted(receipt.states, 'state')} ({counted(receipt.arrays, 'array')}) x "
        f"{counted(receipt.axis_size, 'lane')} in {receipt.seconds:.2f} s: "
        f"discover {receipt.discover_seconds:.2f}, plan {receipt.plan_seconds:.2f}, "
        f"compile {receipt.compile_seconds:.2f}, execute {receipt.execute_seconds:.2f}",
        f"{counted(receipt.programs, 'unique program')}{f' ({kinds})' if kinds else ''}, "
        f"{receipt.cached_programs} of them compiled before",
        f"{span} on {where}, {equal}; {_peak_text(receipt)}; numerics={receipt.numerics}",
    ]
    if not receipt.states:
        lines.append("init_all_states created no state; what a constructor created stays as it is")
    if receipt.constant_bytes:
        lines.append(f"{size_text(receipt.constant_bytes)} that init closes over were on each device meanwhile")
    return "\n".join(lines + [f"note: {folded(note)}" for note in receipt.notes])


def _peak_text(receipt: Receipt) -> str:
    if not receipt.peak_bytes:
        return "peak not measured"
    return f"peak {size_text(max(receipt.peak_bytes.values()))}, planned {size_text(receipt.planned_peak_bytes)}"


def result_text(plan: InitPlan, receipt: Receipt) -> str:
    """A short table of the groups, and the receipt."""
    return f"{rendered(plan_table(plan))}\n{receipt_text(receipt)}"


def ranks_table(summaries: Sequence[Mapping[str, Any]], planned_bytes: int) -> Table:
    """One row per rank of a job: what its devices hold, beside the plan, and its memory and time."""
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("rank", "host", "devices", "on each device", "", "process memory", "seconds"):
        table.add_column(name, justify="left" if name in ("host", "") else "right")
    for each in summaries:
        equal = each["most_bytes"] == each["least_bytes"] == planned_bytes
        held = " to ".join(dict.fromkeys(size_text(each[name]) for name in ("least_bytes", "most_bytes")))
        texts = (held, "equal to the plan" if equal else "", size_text(each["rss_bytes"]), f"{each['seconds']:.2f}")
        table.add_row(str(each["rank"]), each["host"], str(each["devices"]), *texts)
    return table
