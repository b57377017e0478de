"""What each fault of a job of several processes costs, beside bare JAX: a table.

    python -m benchmarks.faults --output docs/faults.md

Every fault of ``tests/system/faults.py`` is run with 2, 4 and 8 processes, and with bare ``jax.distributed``.
"""

import argparse
import datetime
import os
from importlib import metadata
from pathlib import Path

from tests.system.faults import FAULTS, JOIN_SECONDS, LONGEST, Fault, Outcome, run_fault


def main() -> None:
    """Measure everything and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="2,4,8")
    parser.add_argument("--only", default="", help="part of the names of the faults")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--without-bare", action="store_true")
    parser.add_argument("--rows", type=Path, help="file to which rows are added; those that it has are not measured")
    asked = parser.parse_args()
    sizes = [int(size) for size in asked.sizes.split(",")]
    rows = []
    kept = asked.rows.read_text().splitlines() if asked.rows and asked.rows.exists() else []
    for fault in FAULTS:
        if asked.only not in fault.name:
            continue
        for size in sizes:
            if found := [row for row in kept if row.startswith(f"| {fault.name} | {size} |")]:
                rows += found
                continue
            ours = run_fault(fault, size)
            has_bare = not asked.without_bare and "upervisor" not in fault.name
            theirs = run_fault(fault, size, bare=True) if has_bare else None
            row = f"| {fault.name} | {size} | {_cells(ours, fault)} | {_bare_cells(theirs)} |"
            print(row, flush=True)
            if asked.rows:
                with open(asked.rows, "a", encoding="utf-8") as file:
                    file.write(f"{row}\n")
            rows.append(row)
    if asked.output:
        asked.output.write_text(_page(rows), encoding="utf-8")


def _cells(outcome: Outcome, fault: Fault) -> str:
    named = ("yes" if outcome.named else "**no**") if fault.culprit else "nobody is left to"
    codes = sorted(set(outcome.codes))
    return f"{outcome.seconds:.1f} | {', '.join(map(str, codes))} | {named} | {outcome.left}"


def _bare_cells(outcome: Outcome | None) -> str:
    if outcome is None:
        return "| | |"
    seconds = f"{outcome.seconds:.1f}" if not outcome.left else f"> {LONGEST:.0f}"
    codes = sorted(set(outcome.codes)) if not outcome.left else ["(ended by us)"]
    return f"{seconds} | {', '.join(map(str, codes))} | {'yes' if outcome.named else 'no'} | {outcome.left}"


def _page(rows: list[str]) -> str:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("shardinit", "jax", "brainstate"))
    return "\n".join(
        [
            "# When something goes wrong",
            "",
            f"Made by `python -m benchmarks.faults --output docs/faults.md` on {datetime.date.today()}: {versions},",
            f"{os.cpu_count()} CPU cores. Every fault is a real one: processes are killed, stopped, never started.",
            "",
            "Seconds count from the fault until every process is gone; for what hinders joining or makes ranks differ,",
            f"from the start of the job, whose deadline to join is {JOIN_SECONDS} s here. *Named*: does a message name",
            "the culprit, so the rank and what became of it, or the field that differs. *Left* counts processes",
            f"that were still there at the end, or after {LONGEST:.0f} s. A negative code is a signal. Faults are in",
            "the last rank.",
            "",
            "Bare JAX is the recipe of its documentation with its defaults: `jax.distributed.initialize`, `jit` with",
            "`out_shardings`, started by a loop; it has no supervisor to kill. What it does not notice ends with 0;",
            "where it takes no notice of SIGTERM, the seconds are those that its work took anyway.",
            "",
            "| fault | processes | seconds | exit codes | named | left | bare: seconds | exit codes | named | left |",
            "|---|---|---|---|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    main()
