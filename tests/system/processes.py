"""Commands with a deadline, and daemons that are ended by their process id."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
# Where Debian keeps clients and daemons; first, since other installations of them may be newer and lack parts.
PATH = f"/usr/sbin:/usr/bin:/sbin:/bin:{os.environ['PATH']}"


def run(*command: str | Path, seconds: float = 60, env: Mapping[str, str] | None = None, **options) -> str:
    """Run a command from the repository's root; its output, or an AssertionError with it if it fails."""
    done = attempt(*command, seconds=seconds, env=env, **options)
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


def attempt(*command: str | Path, seconds: float = 60, env: Mapping[str, str] | None = None, **options):
    """Run a command that may fail; what it printed on both streams is its ``stdout``."""
    options = {"cwd": ROOT, "stdin": subprocess.DEVNULL, **options}
    return subprocess.run(
        command,
        env=env,
        timeout=seconds,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **options,
    )


def environment(**variables: str | Path) -> dict[str, str]:
    """A user's plain environment, without what pytest, JAX and schedulers put into this one."""
    kept = ("HOME", "LANG", "USER", "TMPDIR")
    mine = {name: os.environ[name] for name in kept if name in os.environ}
    return {**mine, "PATH": PATH, **{name: str(value) for name, value in variables.items()}}


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> float:
    """Wait, and say how long it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"not within {seconds:g} s: {what}"
        time.sleep(0.1)
    return time.monotonic() - started


def processes_with(**variables: str) -> Iterator[psutil.Process]:
    """Processes that have these variables in their environment: those of one job, wherever they have gone."""
    for process in psutil.process_iter():
        try:
            # Read once: a process that ends meanwhile has no environment any more.
            if variables.items() <= process.environ().items() and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except psutil.Error:
            continue


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@dataclass
class Daemons:
    """Daemons of one test session, with their logs in a folder."""

    folder: Path
    env: Mapping[str, str]
    started: list[tuple[str, subprocess.Popen]] = field(default_factory=list)

    def start(self, name: str, *command: str | Path) -> None:
        assert shutil.which(str(command[0]), path=PATH), f"no {command[0]}: run `bash scripts/system.sh`"
        with open(self.folder / f"{name}.out", "wb") as log:
            process = subprocess.Popen(
                command, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self.started.append((name, process))

    def check(self) -> None:
        """Fail with its last words if one has ended."""
        for name, process in self.started:
            if process.poll() is not None:
                words = (self.folder / f"{name}.out").read_text(errors="replace")[-2000:]
                raise AssertionError(f"{name} ended with {process.returncode}:\n{words}")

    def stop(self) -> None:
        """End them, the last started first."""
        for _, process in reversed(self.started):
            for number, seconds in ((signal.SIGTERM, 20), (signal.SIGKILL, 5)):
                if process.poll() is None:
                    process.send_signal(number)
                    try:
                        process.wait(seconds)
                    except subprocess.TimeoutExpired:
                        continue
