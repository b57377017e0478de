"""What the doctor looks at: the surroundings of a process, and JAX's backend as a child process tells of it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Status = Literal["ok", "warning", "problem"]

BACKEND_SECONDS = 60.0
KILL_SECONDS = 5.0
BACKEND_CODE = """
import json, sys
import jax
found = []
for device in jax.local_devices():
    memory = device.memory_stats() or {}
    found.append({"kind": device.device_kind, "bytes_limit": memory.get("bytes_limit")})
platform = jax.local_devices()[0].platform
sys.stdout.write("\\n" + json.dumps({"platform": platform, "devices": found}))
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes
    ----------
    name
        The check.
    status
        ``problem`` if something will fail, ``warning`` if it may.
    what
        What is so, with its numbers.
    fix
        How to fix it; empty if there is nothing to fix.
    """

    name: str
    status: Status
    what: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Backend:
    """JAX's backend, as a child process saw it.

    Attributes
    ----------
    platform
        ``cpu``, ``gpu`` or ``tpu``; None if the child did not get that far.
    kinds
        Kind of each local device.
    bytes_limits
        Memory of each, as far as it says.
    seconds
        How long it took.
    timed_out
        Whether the child was ended.
    code
        Its exit code.
    errors
        Its standard error.
    """

    platform: str | None = None
    kinds: tuple[str, ...] = ()
    bytes_limits: tuple[int | None, ...] = ()
    seconds: float = 0.0
    timed_out: bool = False
    code: int | None = None
    errors: str = ""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a process runs: all that the checks look at.

    Attributes
    ----------
    env
        Variables.
    folder
        Where runs are written.
    shared_memory
        The memory file system that NCCL uses.
    backend
        JAX's backend.
    """

    env: Mapping[str, str]
    folder: Path = field(default_factory=Path.cwd)
    shared_memory: Path = Path("/dev/shm")
    backend: Backend = Backend()


def ask_backend(env: Mapping[str, str], timeout: float = BACKEND_SECONDS, code: str = BACKEND_CODE) -> Backend:
    """Start JAX's backend in a child process, since a driver that hangs or aborts takes its process along."""
    start = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        env={"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    timed_out = False
    try:
        output, errors = child.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        timed_out, output, errors = True, "", ""
    finally:
        if child.poll() is None:
            _kill(child)
    seconds = time.monotonic() - start
    told = [line for line in output.splitlines() if line.startswith('{"platform"')]
    if timed_out or child.returncode != 0 or not told:
        return Backend(seconds=seconds, timed_out=timed_out, code=child.returncode, errors=errors)
    found = json.loads(told[-1])
    kinds = tuple(device["kind"] for device in found["devices"])
    limits = tuple(device["bytes_limit"] for device in found["devices"])
    return Backend(found["platform"], kinds, limits, seconds, code=0, errors=errors)


def _kill(child: subprocess.Popen) -> None:
    try:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate(timeout=KILL_SECONDS)
    except (ProcessLookupError, subprocess.TimeoutExpired):
        return  # one that waits inside of a driver ends when the driver lets go
