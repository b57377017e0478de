"""Receipts and results as text."""

from typing import TYPE_CHECKING

from shardinit.plan.text import plan_table, rendered
from shardinit.wording import counted, folded, size_text

if TYPE_CHECKING:
    from shardinit.execute.executor import InitResult
    from shardinit.execute.receipt import Receipt


def receipt_text(receipt: "Receipt") -> str:
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


def _peak_text(receipt: "Receipt") -> str:
    if not receipt.peak_bytes:
        return "peak not measured"
    return f"peak {size_text(max(receipt.peak_bytes.values()))}, planned {size_text(receipt.planned_peak_bytes)}"


def result_text(result: "InitResult") -> str:
    """A short table of the groups, and the receipt."""
    return f"{rendered(plan_table(result.plan))}\n{receipt_text(result.receipt)}"
