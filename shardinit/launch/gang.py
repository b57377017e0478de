"""A gang: the processes of a job on this machine, started together, watched, and ended together. Without JAX."""

import asyncio
import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from shardinit.errors import ArgumentError, JoinError, LaunchError
from shardinit.launch.control import cannot_listen
from shardinit.launch.folder import FULL, shown, write_record
from shardinit.launch.lock import hold, release
from shardinit.launch.logs import Echo
from shardinit.launch.run_view import RunView, read_run
from shardinit.launch.supervised import LOCAL_SECONDS
from shardinit.launch.supervisor import Job, Supervisor
from shardinit.spec.run import GangSpec, LaunchRecord

PROGRAM = (sys.executable, "-m", "shardinit.cli.main")
OF_OUTER_JOBS = ("JAX_COORDINATOR_PORT", "JAX_LOCAL_DEVICE_IDS", "JAX_PROCESS_COUNT", "JAX_PROCESS_INDEX")


@dataclass(slots=True, eq=False)
class Gang:
    """Processes that run together; ``start`` gives one.

    Attributes
    ----------
    spec
        What was started.
    folder
        The run's folder, with logs, status and at the end ``exit.json``.
    """

    spec: GangSpec
    folder: Path
    supervisor: Supervisor
    held: socket.socket
    code: int | None = None
    error: BaseException | None = None
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run, name="shardinit-gang")
        self.thread.start()

    def wait(self, seconds: float | None = None) -> int | None:
        """Wait until every process has ended; return the exit code of the job, or None if they still run.

        What went wrong in the supervisor itself is raised here.
        """
        self.thread.join(seconds)
        if self.error is not None:
            raise self.error
        return self.code

    def stop(self, why: str = "the gang was stopped") -> None:
        """Ask every process to end, and end those that do not within the grace period. ``wait`` waits for it."""
        self.supervisor.ask_to_end(why)

    def status(self) -> RunView:
        """Where every process is, by the files of the run's folder."""
        return read_run(self.folder, time.time())

    def _run(self) -> None:
        try:
            with self.held:
                self.code = asyncio.run(self.supervisor.run())
        except BaseException as error:
            self.error = error
        finally:
            _release_all(self.folder, self.spec.processes)


def start(spec: GangSpec, echo: Echo | None = None) -> Gang:
    """Start the processes of a job on this machine.

    Parameters
    ----------
    spec
        What to start.
    echo
        Where lines of the processes go; standard output and standard error by default.

    Raises
    ------
    LaunchError
        If the run's folder is another job's.
    JoinError
        If the port is not free.
    OSError
        If the folder cannot be made.

    Examples
    --------
    >>> from shardinit.launch.gang import start
    >>> from shardinit.spec.run import GangSpec
    >>> gang = start(GangSpec(("examples/ei_network.py:build", "--axis-size", "8"), 2))  # doctest: +SKIP
    >>> gang.wait()  # doctest: +SKIP
    0
    """
    if spec.gpus and len(spec.gpus) < spec.processes:
        raise ArgumentError(f"a gang of processes={spec.processes} has gpus={len(spec.gpus)}. Name one for each.")
    port = _free_port() if spec.port is None else spec.port
    with contextlib.ExitStack() as stack:
        held = stack.enter_context(_hold_port(port))
        folder = new_folder(None if spec.folder is None else Path(spec.folder), range(spec.processes)).absolute()
        stack.callback(_release_all, folder, spec.processes)
        seconds = LOCAL_SECONDS if spec.join_seconds is None else spec.join_seconds
        command = [*PROGRAM, "run", *spec.arguments]
        if spec.devices_per_process is not None:
            command += ["--devices", str(spec.devices_per_process)]
        environments = {rank: _environment(spec, folder, seconds, port, rank) for rank in range(spec.processes)}
        echo = echo or Echo()
        plural = "es" if spec.processes > 1 else ""
        where = str(shown(folder))
        echo.say(f"{spec.processes} process{plural} on this machine, logs in {where}", folder=where)
        write_launch(folder, spec.processes, command)
        job = Job(command, environments, spec.processes, folder, seconds, spec.grace_seconds)
        gang = Gang(spec, folder, Supervisor(job, echo), held)
        stack.pop_all()  # the gang lets go of port and folder when it ends
    return gang


def _release_all(folder: Path, processes: int) -> None:
    for rank in range(processes):
        release(folder, rank)


def rank_environment(folder: Path, seconds: float) -> dict[str, str]:
    """Variables by which a supervisor tells a rank where its files go, and how long it may take to join."""
    return {
        **os.environ,
        "SHARDINIT_RUN_FOLDER": str(folder.absolute()),
        "SHARDINIT_STARTED": str(time.time()),
        "SHARDINIT_JOIN_TIMEOUT": str(seconds),
    }


def _environment(spec: GangSpec, folder: Path, seconds: float, port: int, rank: int) -> dict[str, str]:
    found = rank_environment(folder, seconds) | {
        "SHARDINIT_LAUNCHER": "local",
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_COORDINATOR_BIND_ADDRESS": f"127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": str(spec.processes),
        "JAX_PROCESS_ID": str(rank),
    }
    if any(name in os.environ for name in ("grpc_proxy", "https_proxy", "http_proxy")):
        found["no_grpc_proxy"] = "127.0.0.1"  # or the proxy would be asked for the coordinator
    for name in OF_OUTER_JOBS:
        found.pop(name, None)
    if spec.devices_per_process is not None:
        found["JAX_PLATFORMS"] = "cpu"
    if spec.gpus:
        found["CUDA_VISIBLE_DEVICES"] = spec.gpus[rank]
    return found


def write_launch(folder: Path, processes: int, command: Iterable[str]) -> None:
    """Write how a run was started; a full disk is no reason not to start it."""
    record = LaunchRecord(processes, tuple(command), time.time(), os.getpid(), socket.gethostname())
    with contextlib.suppress(OSError):
        write_record(folder / "launch.json", record)


def new_folder(folder: Path | None, ranks: Iterable[int]) -> Path:
    """Make the folder of a run, and hold it for these ranks, or raise what ``shardinit.launch.lock.hold`` raises.

    A full disk is no reason to raise: files can be done without.
    """
    folder = folder or Path("shardinit-runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    held: list[int] = []
    try:
        for rank in ranks:
            hold(folder, rank)
            held.append(rank)
    except (OSError, LaunchError) as error:
        if isinstance(error, OSError) and error.errno in FULL:
            return folder
        for rank in held:
            release(folder, rank)
        raise
    return folder


def try_port(port: int) -> None:
    """Raise OSError if nothing can listen on a port."""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tried.bind(("", port))


def _free_port() -> int:
    """Find a port that is free, as is the one after it."""
    while True:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = found.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                try_port(port + 1)
                return port


def _hold_port(port: int) -> socket.socket:
    """Hold the port after the coordinator's, as a cluster's rank 0 does: two gangs on one port would mix."""
    held = socket.socket()
    try:
        try_port(port)
        port += 1
        held.bind(("127.0.0.1", port))
        held.listen()
    except OSError as error:
        held.close()
        raise JoinError(cannot_listen(port, error).why) from error
    return held
