"""How planning scales: with the number of states and of devices, in time and memory.

    python benchmarks/planner.py --output benchmarks/results/planner.md

Every figure is the median of several child processes. A case plans descriptions of states alone, or a
program that was traced before (its pieces are cut for the first time then).
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

STATES = (1_000, 10_000, 100_000)
DEVICES = (8, 64, 512, 8_192)
LIMIT_SECONDS, LIMIT_BYTES = 5.0, 1 << 30


def states_of(kind: str, count: int):
    """Describe the states of a deep network whose layers are alike, or that has no two states alike."""
    from shardinit import LeafSpec, StateSpec

    def leaf(number: int) -> LeafSpec:
        if kind == "alike":
            return LeafSpec([(128, 512), (512, 128), (512,), (128,), (128,)][number % 5], "float32", 4)
        return LeafSpec((64 + number % 977, 128 + number // 977), "float32", 4)

    return [StateSpec(("layers", str(i // 5), f"w{i % 5}"), "ParamState", (leaf(i),)) for i in range(count)]


def child(kind: str, states: int, devices: int, axis_size: int) -> None:
    """Plan once and print what it took."""
    import shardinit

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    topology = shardinit.Topology("cpu", devices)
    if kind == "program":
        sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
        import mlp96

        work = shardinit.discover(mlp96.build(states // 5))
    else:
        work = states_of(kind, states)
    started = time.perf_counter()
    plan = shardinit.plan(work, topology, axis_size=axis_size)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {"seconds": seconds, "peak": peak * 1024, "growth": (peak - before) * 1024, "mesh": plan.mesh_axes}
    print(json.dumps(found))


def measured(kind: str, states: int, devices: int, axis_size: int, rounds: int) -> dict:
    """Median of several children."""
    command = [sys.executable, __file__, "--child", kind, str(states), str(devices), str(axis_size)]
    env = {**os.environ, "JAX_PLATFORMS": "none_such" if kind != "program" else "cpu"}
    runs = []
    for _ in range(rounds):
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True, env=env)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    middle = {name: statistics.median(run[name] for run in runs) for name in ("seconds", "peak", "growth")}
    return {
        "kind": kind,
        "states": states,
        "devices": devices,
        "axis_size": axis_size,
        **middle,
        "mesh": runs[0]["mesh"],
    }


def cases() -> list[tuple[str, int, int, int]]:
    """Return what is measured: kind, states, devices, lanes."""
    by_states = [(kind, n, 8_192, 32_768) for kind in ("alike", "distinct") for n in STATES]
    by_devices = [("alike", 100_000, d, 32_768) for d in DEVICES[:-1]]
    uneven = [(kind, 100_000, 8_192, n) for kind in ("alike", "distinct") for n in (1, 12)]
    return [*by_states, *by_devices, *uneven, ("program", 2_000, 8_192, 32_768), ("program", 20_000, 8_192, 32_768)]


def page(rows: list[dict]) -> str:
    """Write the results as Markdown."""
    import jax

    lines = [
        "# How planning scales",
        "",
        f"`python benchmarks/planner.py`, {date.today()}, {os.cpu_count()} CPU cores, jax {jax.__version__}. Medians "
        "of child processes. *Peak* is the resident memory of the whole process, Python, JAX and brainstate included.",
        "",
        "| states | alike? | devices | lanes | mesh | seconds | µs per state | peak MiB | of it planning |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        mesh = " x ".join(f"{name}={size}" for name, size in row["mesh"])
        lines.append(
            f"| {row['states']:,} | {row['kind']} | {row['devices']:,} | {row['axis_size']:,} | {mesh} "
            f"| {row['seconds']:.2f} | {row['seconds'] / row['states'] * 1e6:.1f} | {row['peak'] / 2**20:.0f} "
            f"| {row['growth'] / 2**20:.0f} |"
        )
    worst = max((r for r in rows if r["states"] == max(STATES)), key=lambda r: r["seconds"])
    largest = max(r["peak"] for r in rows if r["states"] == max(STATES))
    lines += [
        "",
        f"100,000 states on 8,192 devices, target under {LIMIT_SECONDS:.0f} s and {LIMIT_BYTES / 2**30:.0f} GiB: the "
        f"slowest case takes {worst['seconds']:.2f} s, the largest {largest / 2**30:.2f} GiB "
        f"({'reached' if worst['seconds'] < LIMIT_SECONDS and largest < LIMIT_BYTES else 'NOT reached'}).",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure every case, or one as a child."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="Markdown file to write; printed without it")
    parser.add_argument("--rounds", type=int, default=3, help="children per case")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        kind, *numbers = options.child
        child(kind, *map(int, numbers))
        return
    rows = []
    for case in cases():
        rows.append(measured(*case, options.rounds))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    text = page(rows)
    print(text) if options.output is None else options.output.write_text(text)


if __name__ == "__main__":
    main()
