"""One measurement in one fresh process: ``peer_child.py WORK PEER`` prints one line of JSON.

Started by ``peers.py``, with the number of devices in the environment.
"""

import gc
import json
import re
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh
from peer_makers import MAKERS, Made, Work, find_work

COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"
REPEATS = 5


class CompileClock:
    """Adds up what JAX says of its compilations, which may run side by side in threads."""

    def __init__(self):
        self.spans: list[tuple[float, float]] = []
        jax.monitoring.register_event_duration_secs_listener(self._heard)

    def _heard(self, event: str, seconds: float, **_: Any) -> None:
        if event == COMPILE_EVENT:
            now = time.perf_counter()
            self.spans.append((now - seconds, now))

    def measures(self) -> dict[str, float]:
        total = sum(end - start for start, end in self.spans)
        covered, until = 0.0, 0.0
        for start, end in sorted(self.spans):
            covered += max(0.0, end - max(start, until))
            until = max(until, end)
        return {"compile_seconds": total, "compile_wall_seconds": covered, "compilations": len(self.spans)}


def memory(field: str) -> int:
    """``VmRSS`` or ``VmHWM`` of this process, in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) * 1024


def reset_high_water() -> int:
    """Bring VmHWM down to what is resident now, and return that."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    resident, high = memory("VmRSS"), memory("VmHWM")
    if high - resident > 1 << 20:
        raise RuntimeError(f"VmHWM could not be reset: {high} bytes with {resident} resident")
    return resident


def timed(make: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    made = make()
    jax.block_until_ready(made.arrays if isinstance(made, Made) else None)
    return time.perf_counter() - started, made


def start_backend() -> Mesh:
    devices = jax.devices()
    jax.block_until_ready([jax.device_put(np.zeros(1, np.float32), d) for d in devices])
    return Mesh(np.array(devices), ("lanes",), axis_types=(AxisType.Auto,))


def check(made: Made, work: Work) -> None:
    """Every array must have all lanes first, split evenly over all devices."""
    devices = jax.device_count()
    for array in made.arrays:
        held = {s.device: s.data.shape[0] for s in array.addressable_shards}
        if array.shape[0] != work.lanes or len(held) != devices or set(held.values()) != {work.lanes // devices}:
            raise RuntimeError(f"not sharded over {devices} devices: {array.shape}, {array.sharding}")


def measure_peer(work: Work, peer: str) -> dict[str, Any]:
    prepare = MAKERS[peer](work, start_backend())
    make = prepare()
    start, compiles = reset_high_water(), CompileClock()
    cold, made = timed(make)
    found = {"cold_seconds": cold, "peak_bytes": memory("VmHWM") - start, **compiles.measures()}
    check(made, work)
    found |= {"arrays": len(made.arrays), "state_bytes": sum(a.nbytes for a in made.arrays)}
    if receipt := getattr(made.result, "receipt", None):
        names = ("discover_seconds", "plan_seconds", "compile_seconds", "execute_seconds", "programs", "states")
        found |= {f"receipt_{name}": getattr(receipt, name) for name in names}
    del made, make
    make = prepare()
    gc.collect()
    found["warm_seconds"], made = timed(make)
    if hasattr(made.result, "rerun"):
        found["rerun_seconds"] = statistics.median(timed(made.result.rerun)[0] for _ in range(REPEATS))
    return found


def measure_bare(work: Work, peer: str) -> dict[str, Any]:
    """Repeat a draw that is compiled: the first call is not counted."""
    prepare = MAKERS[peer](work, start_backend())
    _, made = timed(prepare())
    bytes_made = sum(a.nbytes for a in made.arrays)
    seconds = []
    for _ in range(REPEATS):
        del made
        make = prepare()
        took, made = timed(make)
        seconds.append(took)
    return {"warm_seconds": statistics.median(seconds), "state_bytes": bytes_made, "arrays": len(made.arrays)}


def measure_scale(work: Work, peer: str) -> dict[str, Any]:
    """Discovery and planning alone, first thing in a process: nothing is compiled or drawn."""
    import shardinit

    module = work.build()
    started = time.perf_counter()
    program = shardinit.discover(module)
    discovered = time.perf_counter()
    planned = shardinit.plan(program, shardinit.Topology("cpu", 8), axis_size=64)
    ended = time.perf_counter()
    return {
        "discover_seconds": discovered - started,
        "plan_seconds": ended - discovered,
        "states": len(planned.states),
    }


def main() -> int:
    name, peer = sys.argv[1:]
    special = {"bare": measure_bare, "bare_pieces": measure_bare, "scale": measure_scale}
    try:
        work = find_work(name)
        found = special.get(peer, measure_peer)(work, peer)
    except Exception as error:
        traceback.print_exc()
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
        return 1
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
