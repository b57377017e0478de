"""Make ``docs/ensemble-sizes.md``: which ensemble sizes fit which number of devices, for shardinit and its peers.

    python benchmarks/ensemble_sizes.py --output docs/ensemble-sizes.md

Every cell of the page comes from a run of its own, in a fresh process with that many emulated CPU devices.
"""

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from subprocess import PIPE

from ensemble_child import OTHER_FORMS, WAYS
from ensemble_report import INDIVISIBLE, UNEVEN, Limits, Run, make_page

SIZES = "1,5,8,12,64,100,1000"
DEVICES = "8,12"
CHILD = Path(__file__).with_name("ensemble_child.py")


def run_child(way: str, size: int, devices: int, limits: Limits) -> Run:
    """Run one child with none of the caller's settings of JAX, and stop it at the limits."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_", "PJRT_"))}
    command = [sys.executable, str(CHILD), way, str(size), str(devices)]
    with subprocess.Popen(command, env=inherited, stdout=PIPE, stderr=PIPE, text=True) as process:
        printed, complained, stopped = _watch(process, limits)
    lines = printed.strip().splitlines()
    if stopped:
        return Run(way, size, devices, {"stopped": stopped})
    if process.returncode or not lines:
        last = "".join(complained.strip().splitlines()[-1:]) or "no message"
        return Run(way, size, devices, {"stopped": f"exit {process.returncode}: {last}"})
    return Run(way, size, devices, json.loads(lines[-1]))


def _watch(process: subprocess.Popen, limits: Limits) -> tuple[str, str, str]:
    """Both outputs of the child, and why it was stopped."""
    deadline, stopped = time.monotonic() + limits.seconds, ""
    while True:
        try:
            return *process.communicate(timeout=0.05), stopped
        except subprocess.TimeoutExpired:
            if time.monotonic() > deadline:
                stopped = f"stopped after {limits.seconds:g} s"
            elif resident_gigabytes(process.pid) > limits.gigabytes:
                stopped = f"stopped above {limits.gigabytes:g} GiB of memory for all devices together"
            if stopped:
                process.kill()


def resident_gigabytes(pid: int) -> float:
    """Resident memory of a process; 0 once it has ended."""
    try:
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0.0
    return int(found[1]) / 2**20 if found else 0.0


def measure(sizes: list[int], devices: list[int], ways: Iterable[str], limits: Limits) -> list[Run]:
    """Run all children, one at a time."""
    runs = []
    for count, size, way in itertools.product(devices, sizes, ways):
        started = time.perf_counter()
        runs.append(run := run_child(way, size, count, limits))
        outcome = " ".join(f"{k}={v}" for k, v in run.found.items())
        seconds = time.perf_counter() - started
        print(f"{size:5} lanes {count:3} devices {way:18} {seconds:5.1f} s  {outcome}", flush=True)
    return runs


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description="Make the page of ensemble sizes.")
    parser.add_argument("--sizes", default=SIZES, help="numbers of lanes, separated by commas")
    parser.add_argument("--devices", default=DEVICES, help="numbers of devices, separated by commas")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds that one child may take")
    parser.add_argument("--memory", type=float, default=14.0, help="GiB of resident memory that one child may take")
    parser.add_argument("--output", type=Path, default=Path("docs/ensemble-sizes.md"), help="page to write")
    return parser.parse_args()


def main() -> int:
    """Measure and write the page."""
    options = parse()
    sizes, devices = ([int(number) for number in text.split(",")] for text in (options.sizes, options.devices))
    limits = Limits(options.timeout, options.memory)
    runs = measure(sizes, devices, WAYS, limits)
    indivisible = measure([INDIVISIBLE[0]], [INDIVISIBLE[1]], WAYS, limits)
    others = measure([UNEVEN[0]], [UNEVEN[1]], OTHER_FORMS, limits)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(make_page(runs, others, indivisible, limits, " ".join(["python", *sys.argv])))
    print(f"written: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
