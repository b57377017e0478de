"""Start real processes of one job on this machine, with a deadline; end them by their id."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from tests.system.faults import free_port

ROOT = Path(__file__).parents[2]


def environment(devices: int, **more: str) -> dict[str, str]:
    """Environment of a process with emulated devices."""
    own = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices), "PJRT_NPROC": str(devices + 1)}
    return {**os.environ, **own, "PYTHONPATH": str(ROOT), **more}


def run_script(
    code: str, processes: int, devices: int, *, timeout: float = 120, dies: bool = False, **job: Any
) -> list[str]:
    """Run Python code as every rank of a job, with ``rank``, ``processes``, ``job`` set; return what each printed."""
    job["coordinator"] = f"127.0.0.1:{free_port()}"
    before = f"""
import json, os, sys
rank, processes, job = int(sys.argv[1]), {processes}, json.loads(sys.argv[2])
from tests.multiprocess.rank import join
join(job, processes, rank)
"""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", before + code, str(rank), json.dumps(job)],
            cwd=ROOT,
            env=environment(devices),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(processes)
    ]
    try:
        with ThreadPoolExecutor(processes) as threads:  # each is read, or one that prints much would wait
            printed = list(threads.map(lambda process: process.communicate(timeout=timeout)[0], started))
    finally:
        for process in started:
            process.kill()
            process.wait()
    for process, text in zip(started, printed, strict=True):
        assert (process.returncode != 0) == dies, text
    return printed


def whole_arrays(folder: Path, name: str, processes: int) -> list[np.ndarray]:
    """Put together what each rank wrote of its own shards; every element must be there, and equal where it is twice."""
    found: dict[int, np.ndarray] = {}
    there: dict[int, np.ndarray] = {}
    for rank in range(processes):
        with np.load(folder / f"{name}.{rank}.npz") as shards:
            for key in shards.files:
                number, _, place, shape = key.split("|")
                index = tuple(slice(*ends) for ends in json.loads(place))
                whole = found.setdefault(int(number), np.zeros(json.loads(shape), shards[key].dtype))
                seen = there.setdefault(int(number), np.zeros(json.loads(shape), bool))
                if np.all(seen[index]):
                    np.testing.assert_array_equal(whole[index], shards[key])
                whole[index] = shards[key]
                seen[index] = True
    assert all(np.all(seen) for seen in there.values())
    return [found[number] for number in sorted(found)]
