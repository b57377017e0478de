"""Things that go wrong in a job of several processes. Real processes are started, and really killed.

``benchmarks/faults.py`` measures what each costs, beside bare ``jax.distributed``.
"""

import dataclasses
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
TARGET = str(ROOT / "tests" / "system" / "faulty.py")
MARK = "SHARDINIT_FAULT_RUN"  # in the environment of every process of a run, so that none is overlooked
JOIN_SECONDS = 15
LONGEST = 60.0
DEVICES = 1


@dataclasses.dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Attributes
    ----------
    name
        As in the table.
    code
        Exit code that the job must have.
    culprit
        Pattern of what the message must name.
    inside
        What the rank does to itself, in its init.
    outside
        What is done to the running job from outside.
    arguments, environment
        What is different for the faulty rank: then every rank is started by itself, as by a scheduler.
    absent
        Whether the faulty rank is not started at all.
    """

    name: str
    code: int
    culprit: str
    inside: str = ""
    outside: Callable[["Run"], None] | None = None
    arguments: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    absent: bool = False

    @property
    def is_by_hand(self) -> bool:
        """Whether ranks are started one by one."""
        return bool(self.arguments or self.environment or self.absent)

    @property
    def is_to_parent(self) -> bool:
        """Whether it is a signal to the supervisor of one rank."""
        return bool({"KILL_PARENT", "TERM_PARENT"} & set(dict(self.environment)))


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What was measured: seconds from the fault until all was down, exit codes, what was named, what was left."""

    seconds: float
    codes: tuple[int, ...]
    named: bool
    left: int
    output: str


@dataclasses.dataclass
class Run:
    """A running job: what a fault can do something to."""

    size: int
    folder: Path
    port: int
    mark: str
    started: list[subprocess.Popen]
    bare: bool
    holder: socket.socket | None = None

    @property
    def faulty(self) -> int:
        """Number of the rank that is to blame."""
        return self.size - 1

    def pid(self, rank: int) -> int:
        """Process id of a rank itself, not of its supervisor."""
        if self.bare:
            return self.started[rank].pid
        return json.loads((self.folder / "run" / f"rank-{rank}" / "status.json").read_text())["pid"]

    def signal_rank(self, rank: int, number: int) -> None:
        """Send a signal to a rank."""
        os.kill(self.pid(rank), number)

    def signal_parents(self, number: int) -> None:
        """Send a signal to what was started: the supervisor, or each bare process."""
        for process in self.started:
            process.send_signal(number)

    def processes(self) -> list[psutil.Process]:
        """Find every process of this run, by its environment."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found


def _rank(number: int, text: str = "") -> Callable[[Run], None]:
    def send(run: Run) -> None:
        run.signal_rank(0 if text == "first" else run.faulty, number)

    return send


def _parents(number: int) -> Callable[[Run], None]:
    return lambda run: run.signal_parents(number)


OTHER_FLAG = ("JAX_THREEFRY_PARTITIONABLE", "0")
FAULTS = [
    Fault("a rank never starts", 10, r"rank {r} of {n} never came", absent=True),
    Fault("a rank exits with 1", 1, r"rank {r} .*exit code 1", inside="exit"),
    Fault("a rank raises", 4, r"rank {r} .*thirteen is unlucky", inside="raise"),
    Fault("SIGKILL of a rank", 11, r"rank {r} .*SIGKILL", outside=_rank(signal.SIGKILL)),
    Fault("SIGKILL of rank 0", 11, r"rank 0 .*SIGKILL", outside=_rank(signal.SIGKILL, "first")),
    Fault("SIGKILL of the supervisor", -9, "", outside=_parents(signal.SIGKILL)),
    Fault("SIGKILL of one rank's supervisor", 11, r"rank {r} .*is gone", environment=(("KILL_PARENT", "1"),)),
    Fault("SIGSTOP of a rank", 11, r"rank {r} .*stopped", outside=_rank(signal.SIGSTOP)),
    Fault("another seed in one rank", 12, r"seed: 0 on .*; 1 on rank {r}", arguments=("--seed", "1")),
    Fault("other kwargs in one rank", 12, r"kwargs: .* on rank {r}", arguments=("--kwargs", '{"size": 65}')),
    Fault("other source in one rank", 12, r"source of faulty: .* on rank {r}", environment=(("OTHER_SOURCE", "1"),)),
    Fault("another jax flag in one rank", 12, r"jax_threefry_partitionable: .* on rank {r}", environment=(OTHER_FLAG,)),
    Fault("the port is in use", 10, r"rank 0 cannot listen on port {p}", environment=(("HOLD_PORT", "1"),)),
    Fault("the coordinator cannot be reached", 10, r"rank {r} of {n} never came", environment=(("WRONG_PORT", "1"),)),
    Fault("SIGTERM to one rank", 13, r"rank {r} .*SIGTERM", outside=_rank(signal.SIGTERM)),
    Fault("SIGTERM to one rank's supervisor", 13, r"rank {r}'s .*SIGTERM", environment=(("TERM_PARENT", "1"),)),
    Fault("SIGTERM to all", 13, r"asked to end by SIGTERM", outside=_parents(signal.SIGTERM)),
]


def run_fault(fault: Fault, size: int, bare: bool = False, longest: float = LONGEST) -> Outcome:
    """Start a job, let the fault happen, wait until everything is down; what is left then is ended."""
    folder = Path(tempfile.mkdtemp(prefix="shardinit-faults-"))
    run = Run(size, folder, free_port(), uuid.uuid4().hex, [], bare)
    logs = []
    try:
        began = time.time()
        with open(folder / "output", "wb") as log:
            logs.append(log)
            _start(fault, run, log)
            if fault.outside or fault.is_to_parent:
                _wait_until_running(run, fault)
                began = time.time()
                if fault.outside:
                    fault.outside(run)
                else:
                    is_kill = "KILL_PARENT" in dict(fault.environment)
                    run.started[run.faulty].send_signal(signal.SIGKILL if is_kill else signal.SIGTERM)
            while time.time() - began < longest + 60 and run.processes():
                if (folder / "fault").exists():
                    began = _time_in(folder / "fault", began)
                if time.time() - began > longest:
                    break
                time.sleep(0.1)
        seconds = time.time() - began
        left = run.processes()
        for process in left:  # by id, and only those of this run
            process.kill()
        codes = tuple(process.wait(timeout=30) for process in run.started)
        output = (folder / "output").read_text(errors="replace")
        pattern = fault.culprit.format(r=run.faulty, n=size, p=run.port)
        named = bool(pattern) and bool(re.search(pattern, output))
        if bare:
            named = bool(re.search(rf"task:{run.faulty}\b|rank {run.faulty}\b", output))
        return Outcome(seconds, codes, named, len(left), output)
    finally:
        for process in [*run.processes()]:
            process.kill()
        if run.holder is not None:
            run.holder.close()
        shutil.rmtree(folder, ignore_errors=True)


def _start(fault: Fault, run: Run, log) -> None:
    settings = dict(fault.environment)
    base = {
        **os.environ,
        MARK: run.mark,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "FAULT": "wait" if fault.outside or fault.is_to_parent else fault.inside,
        "FAULTY_RANK": str(run.faulty),
        "FAULT_FILE": str(run.folder / "fault"),
        "READY_FILES": str(run.folder / "ready"),
    }
    if "HOLD_PORT" in settings:
        run.holder = socket.socket()
        run.holder.bind(("", run.port))
        run.holder.listen()
    options = ["--axis-size", str(run.size * DEVICES), "--devices", str(DEVICES)]
    if run.bare or fault.is_by_hand:
        for rank in range(run.size):
            if fault.absent and rank == run.faulty:
                continue
            process = subprocess.Popen(
                _command_by_hand(fault, run, rank, options),
                env=base | _own_environment(fault, run, rank),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=_folder_of(fault, run, rank),
            )
            run.started.append(process)
    else:
        command = [sys.executable, "-m", "shardinit.cli.main", "launch", "--processes", str(run.size)]
        command += ["--devices-per-process", str(DEVICES), "--run-folder", str(run.folder / "run"), "--join-timeout"]
        command += [str(4 * JOIN_SECONDS), f"{TARGET}:build", *options[:2]]
        process = subprocess.Popen(command, env=base, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=run.folder)
        run.started.append(process)


def _command_by_hand(fault: Fault, run: Run, rank: int, options: list[str]) -> list[str]:
    if run.bare:
        return [sys.executable, TARGET]
    target = TARGET
    if "OTHER_SOURCE" in dict(fault.environment):  # the same relative TARGET, in a folder for each
        target = "faulty.py"
        own = "\n# another line\n" if rank == run.faulty else ""
        (_folder_of(fault, run, rank) / target).write_text(Path(TARGET).read_text() + own)
    command = [sys.executable, "-m", "shardinit.cli.main", "run", f"{target}:build", *options]
    seconds = JOIN_SECONDS if fault.code == 10 else 4 * JOIN_SECONDS
    command += ["--join-timeout", str(seconds), "--run-folder", str(run.folder / "run")]
    return command + list(fault.arguments if rank == run.faulty else ())


def _folder_of(fault: Fault, run: Run, rank: int) -> Path:
    """Working folder of a rank that is started by hand."""
    folder = run.folder / f"cwd-{rank}" if "OTHER_SOURCE" in dict(fault.environment) else run.folder
    folder.mkdir(exist_ok=True)
    return folder


def _own_environment(fault: Fault, run: Run, rank: int) -> dict[str, str]:
    settings = dict(fault.environment)
    port = run.port
    if rank == run.faulty and "WRONG_PORT" in settings:
        port = run.port + 10
    own = {
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": str(run.size),
        "JAX_PROCESS_ID": str(rank),
        "JAX_NUM_CPU_DEVICES": str(DEVICES),
    }
    if rank == run.faulty:
        own |= {name: value for name, value in settings.items() if name.startswith("JAX_")}
        if fault.arguments[:1] == ("--seed",):
            own["SEED"] = "1"
        if fault.arguments[:1] == ("--kwargs",):
            own["SIZE"] = "65"
        if "OTHER_SOURCE" in settings and run.bare:
            own["SEED"] = "1"  # as a line that was changed
    return own


def _wait_until_running(run: Run, fault: Fault) -> None:
    """Wait until every rank is inside of its init."""
    deadline = time.time() + 90
    while time.time() < deadline:
        if run.bare:
            there = all((run.folder / f"ready.{rank}").exists() for rank in range(run.size))
        else:
            there = all(_state(run.folder, rank) == "discovering" for rank in range(run.size))
        if there:
            time.sleep(0.5)
            return
        time.sleep(0.1)
    raise TimeoutError(f"{fault.name}: the job did not come up:\n{(run.folder / 'output').read_text()[-3000:]}")


def _state(folder: Path, rank: int) -> str | None:
    try:
        return json.loads((folder / "run" / f"rank-{rank}" / "status.json").read_text())["state"]
    except (OSError, ValueError):
        return None


def _time_in(path: Path, otherwise: float) -> float:
    try:
        return float(path.read_text())
    except ValueError:
        return otherwise


def free_port() -> int:
    """Find a port that is free, as is the one after it."""
    while True:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            try:
                two.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port
