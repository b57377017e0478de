"""The rank's own side of being watched: where it is, what it says, and a way out that keeps no one waiting."""

import contextlib
import hashlib
import json
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from shardinit.errors import LaunchError
from shardinit.launch.folder import rank_folder, write_record, write_text
from shardinit.launch.launch_spec import LaunchSpec
from shardinit.launch.supervised import is_supervised
from shardinit.spec.run import DeviceStatus, RankStatus

STATUS_SECONDS = 1.0
PROGRESS_SECONDS = 2.0  # between log lines


@dataclass(slots=True, eq=False)
class Rank:
    """This process, as one of a job.

    Attributes
    ----------
    spec
        Which process of how many.
    folder
        The run's folder; None if nothing is to be written.
    log
        ``text``, ``json``, or None for no log lines.
    smi
        Whether jax-smi tracks memory once this rank has joined.
    """

    spec: LaunchSpec
    folder: Path | None = None
    log: str | None = None
    smi: bool = False
    state: str = "starting"
    done: int = 0
    total: int = 0
    planned_bytes: int | None = None
    error: str | None = None
    started: float = field(default_factory=lambda: float(os.environ.get("SHARDINIT_STARTED", time.time())))
    said: float = 0.0
    writing: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_first(self) -> bool:
        """Whether this is the process that prints what all have in common."""
        return self.spec.process_id == 0

    def watched(self) -> None:
        """Begin to write this rank's status, once a second."""
        if self.folder is not None:
            with contextlib.suppress(OSError):
                rank_folder(self.folder, self.spec.process_id).mkdir(parents=True, exist_ok=True)
            threading.Thread(target=self._write_on_and_on, daemon=True, name="shardinit-status").start()
        if sys.platform != "linux" and is_supervised():
            threading.Thread(target=_end_with_parent, daemon=True, name="shardinit-parent").start()

    def event(self, state: str, text: str, **fields: Any) -> None:
        """Enter a state: one log line, and the status file."""
        self.state, self.said = state, time.monotonic()
        self.write_status()
        self.say(state, text, **fields)

    def failed(self, summary: str) -> None:
        """Leave one line about what went wrong to the supervisor, and to those who watch."""
        self.error = summary
        self.write_status()

    def say(self, event: str, text: str, **fields: Any) -> None:
        """Write one log line."""
        elapsed = time.time() - self.started
        if self.log == "json":
            entry = {"event": event, "time": time.time(), "elapsed": round(elapsed, 3), "rank": self.spec.process_id}
            print(json.dumps({**entry, "text": text, **fields}), file=sys.stderr, flush=True)
        elif self.log == "text":
            print(f"+{elapsed:.1f} s {event}: {text}", file=sys.stderr, flush=True)

    def progress(self, done: int, total: int) -> None:
        """Count pieces; a log line now and then."""
        self.done, self.total = done, total
        if time.monotonic() - self.said > PROGRESS_SECONDS or done == total:
            self.said = time.monotonic()
            self.say("progress", f"{done} of {total} pieces", done=done, total=total)

    def join(self) -> None:
        """Become one of the job's processes; only then may anything start the backend."""
        from shardinit.backend.join import join

        if not self.spec.is_distributed:
            join(self.spec)
        else:
            import jax

            self.event("joining", f"rank {self.spec.process_id} of {self.spec.processes} at {self.spec.coordinator}")
            join(self.spec)
            _start_backend()
            here = f"{jax.local_device_count()} of {jax.device_count()} devices here"
            self.event("joined", f"{self.spec.processes} processes, {here}")
        _start_backend()
        if self.smi:
            self._track_memory()

    def agree(self, name: str, fields: Mapping[str, str]) -> None:
        """Compare fields with the other processes: ``shardinit.backend.exchange.agree``."""
        from shardinit.backend.exchange import agree

        agree(name, fields, range(self.spec.processes))

    def finish(self, summary: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Wait for all ranks, give everyone every rank's summary, leave the distributed runtime."""
        if not self.spec.is_distributed:
            return [dict(summary)]
        import jax

        from shardinit.backend.exchange import exchange

        texts = exchange("finish", json.dumps(summary), range(self.spec.processes))
        jax.distributed.shutdown()
        return [json.loads(text) for text in texts]

    def _track_memory(self, interval: float = 1.0) -> None:
        """Let jax-smi write this rank's memory profile into its folder; starts the backend."""
        from jax_smi import initialise_tracking

        assert self.folder is not None
        threading.excepthook = _end_of_thread
        initialise_tracking(interval, str(rank_folder(self.folder, self.spec.process_id)))

    def write_plan(self, text: str) -> None:
        """Keep the plan in the run's folder."""
        if self.folder is not None and self.is_first:
            with contextlib.suppress(OSError):  # a full disk, or a folder that somebody removed
                write_text(self.folder / "plan.json", text)

    def is_first_to_say(self, text: str) -> int | None:
        """None if no rank has said this yet, else the rank that has."""
        from shardinit.backend.private_jax import distributed_state

        client: Any = distributed_state.client
        if client is None:
            return None
        key = f"shardinit/said/{hashlib.sha256(text.encode()).hexdigest()}"
        with contextlib.suppress(Exception):  # nothing that goes wrong here may hide the text itself
            try:
                client.key_value_set(key, str(self.spec.process_id))
            except Exception:
                return int(client.key_value_try_get(key))
        return None

    def write_status(self) -> None:
        """Write where this rank is."""
        if self.folder is None:
            return
        with self.writing, contextlib.suppress(Exception):  # a status is not worth failing for
            status = RankStatus(
                rank=self.spec.process_id,
                processes=self.spec.processes,
                pid=os.getpid(),
                host=socket.gethostname(),
                started=self.started,
                time=time.time(),
                state=self.state,
                done=self.done,
                total=self.total,
                planned_bytes=self.planned_bytes,
                error=self.error,
                rss_bytes=psutil.Process().memory_info().rss,
                devices=_devices() if self.state not in ("starting", "joining") else (),
            )
            write_record(rank_folder(self.folder, self.spec.process_id) / "status.json", status)

    def _write_on_and_on(self) -> None:
        while True:
            self.write_status()
            time.sleep(STATUS_SECONDS)


def _start_backend() -> None:
    import jax

    try:
        jax.local_device_count()
    except Exception as error:  # JAX has an AssertionError without a word for a platform that is not there
        asked = os.environ.get("JAX_PLATFORMS", "not set")
        raise LaunchError(
            f"JAX's backend does not start (JAX_PLATFORMS={asked}): {error or type(error).__name__}. "
            "Install what it needs, such as pip install 'shardinit[cuda12]', or unset JAX_PLATFORMS; "
            "shardinit doctor says more."
        ) from error


def _devices() -> tuple[DeviceStatus, ...]:
    import jax

    found = []
    for device in jax.local_devices():
        stats = device.memory_stats() or {}
        figures = {name: stats.get(name) for name in ("bytes_in_use", "peak_bytes_in_use", "bytes_limit")}
        found.append(DeviceStatus(f"{device.platform}:{device.id}", device.device_kind, **figures))
    return tuple(found)


def _end_of_thread(found: threading.ExceptHookArgs) -> None:
    """Say in a line that jax-smi cannot write any more; of other threads what Python says."""
    of_smi = any(
        frame.f_globals.get("__name__", "").startswith("jax_smi") for frame, _ in traceback.walk_tb(found.exc_traceback)
    )
    if of_smi and isinstance(found.exc_value, OSError):
        print(f"shardinit: warning: jax-smi ends: {found.exc_value}; memory profiles are lost", file=sys.stderr)
    else:
        threading.__excepthook__(found)


def _end_with_parent() -> None:
    """Where the system does not do it: end when the supervisor is gone."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
