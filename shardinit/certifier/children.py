"""Child processes that compile: started, watched under a timeout, ended."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shardinit.certifier.export import ExportedProgram
from shardinit.certifier.targets import Target
from shardinit.spec.plan import InitPlan

CHILD = Path(__file__).with_name("child.py")
STARTING_SECONDS = 60.0
PROBE_BYTES = 1 << 16


@dataclass(slots=True, eq=False)
class _Child:
    """A child process and what it still has to compile; ``since`` is when the current one began.

    Before it is ready, the time is that of starting Python and JAX.
    """

    process: subprocess.Popen
    waiting: list[ExportedProgram]
    results: Path
    since: float
    log: Path
    is_ready: bool = False


def compile_all(
    programs: Sequence[ExportedProgram], plan: InitPlan, target: Target, folder: Path, timeout: float, workers: int
) -> dict[int, dict[str, Any]]:
    """Compile every program in child processes; what the compiler said, by the program's number."""
    done: dict[int, dict[str, Any]] = {p.number: {"error": p.error} for p in programs if p.error}
    left = [p for p in programs if not p.error]
    children: list[_Child] = []
    try:
        for share in (left[i::workers] for i in range(workers)):
            if share:
                children.append(_start(share, plan, target, folder))
        while children:
            time.sleep(0.05)
            for child in list(children):
                _collect(child, done)
                gone = child.process.poll() is not None
                limit = timeout if child.is_ready else timeout + STARTING_SECONDS
                if not gone and (not child.waiting or time.monotonic() - child.since < limit):
                    continue
                if not gone:
                    child.process.kill()
                child.process.wait()
                _collect(child, done)
                children.remove(child)
                _check_room(folder)
                if child.waiting:  # the one that it was at is to blame; go on with the others
                    stuck, *rest = child.waiting
                    done[stuck.number] = {"error": _why(child, gone, timeout)}
                    if rest:
                        children.append(_start(rest, plan, target, folder))
    finally:
        for child in children:
            child.process.kill()
            child.process.wait()
    return done


def _check_room(folder: Path) -> None:
    """Raise OSError where a child can have ended for want of room for what it writes."""
    probe = folder / "probe"
    probe.write_bytes(b"x" * PROBE_BYTES)
    probe.unlink()


def _start(share: Sequence[ExportedProgram], plan: InitPlan, target: Target, folder: Path) -> _Child:
    with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".json", delete=False) as job:
        results = Path(job.name).with_suffix(".results")
        json.dump(
            {
                "platform": target.platform,
                "topology": target.topology,
                "mesh": plan.mesh_axes,
                "results": str(results),
                "parent": os.getpid(),
                "pieces": [{"number": p.number, "file": p.file, "specs": p.specs, "on_mesh": p.on_mesh} for p in share],
            },
            job,
        )
    log = Path(job.name).with_suffix(".log")
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(CHILD), job.name],
            env={**os.environ, **target.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    return _Child(process, list(share), results, time.monotonic(), log)


def _collect(child: _Child, done: dict[int, dict[str, Any]]) -> None:
    if not child.results.exists():
        return
    for line in child.results.read_text().splitlines():
        try:
            found = json.loads(line)
        except ValueError:  # half a line: the rest comes
            continue
        if found["number"] is None:
            child.since, child.is_ready = (child.since, True) if child.is_ready else (time.monotonic(), True)
        elif found["number"] not in done:
            done[found["number"]] = found
            child.waiting = [p for p in child.waiting if p.number != found["number"]]
            child.since = time.monotonic()


def _why(child: _Child, gone: bool, timeout: float) -> str:
    if not gone:
        return f"the compiler did not finish within timeout={timeout:g} s"
    code = child.process.returncode
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    lines = [line for line in child.log.read_text(errors="replace").splitlines() if line.strip()]
    return f"the compiler's process ended {how}: {' '.join(lines[-3:])[-600:]}"
