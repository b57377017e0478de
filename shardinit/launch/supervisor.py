"""A supervisor: the parent that starts the ranks of this machine, watches them, and ends them. Without JAX.

JAX's runtime aborts a process that loses a peer, and blocks one that waits for it, so the one who says what
happened, and sees to it that nothing is left, must be another process.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import psutil

from shardinit.launch.control import VERDICT_SECONDS, Channel, Hub, Spoke, not_here
from shardinit.launch.exits import DONE, NEVER_CAME, PEER_DIED, PREEMPTED, RETRY_HELPS, End, cause_of, end_of
from shardinit.launch.folder import lost_text, rank_folder, read_record, why_not_writable, write_record
from shardinit.launch.logs import Echo, Tail
from shardinit.spec.run import EndRecord, RankStatus
from shardinit.wording import ranks_text

TICK_SECONDS = 0.05
LOOK_SECONDS = 0.5  # between looks at what costs more: states of processes, status files
SETTLE_SECONDS = 0.15  # for causes seen together
CAUSE_SECONDS = 1.5  # for the cause of what looks like a consequence
UNTOLD_SECONDS = 20.0  # for a rank 0 that is not there yet
FINISH_SECONDS = 120.0
BEFORE_JOINED = ("starting", "joining")


@dataclass(frozen=True, slots=True)
class Job:
    """What a supervisor is to do.

    Attributes
    ----------
    command
        The program of a rank.
    environments
        Rank to its environment, one per rank that this supervisor owns.
    processes
        How many ranks there are, others' included.
    folder
        The run's folder.
    join_seconds
        Deadline for all ranks to join.
    grace_seconds
        From SIGTERM to SIGKILL.
    hint
        What is likely to blame if a rank does not join.
    stopped_seconds
        How long a rank may be stopped before it counts as dead.
    """

    command: Sequence[str]
    environments: Mapping[int, Mapping[str, str]]
    processes: int
    folder: Path
    join_seconds: float
    grace_seconds: float = 10.0
    hint: str = ""
    stopped_seconds: float = 10.0


@dataclass(slots=True, eq=False)
class _Child:
    rank: int
    process: subprocess.Popen
    tails: list[Tail]
    returncode: int | None = None
    stopped_since: float | None = None
    has_joined: bool = False

    @property
    def who(self) -> str:
        return f"rank {self.rank} (pid {self.process.pid} on {socket.gethostname()})"


@dataclass(slots=True, eq=False)
class Supervisor:
    """Runs a job to its end: ``await run()`` gives the exit code.

    ``channel`` is the control channel to the supervisors of other ranks; None if this one owns all.
    """

    job: Job
    echo: Echo
    channel: Channel | None = None
    children: list[_Child] = field(default_factory=list)
    ends: list[End] = field(default_factory=list)
    seen: float | None = None  # when the first end was seen
    done_since: float | None = None
    looked: float = 0.0
    has_warned: bool = False
    asked: str = ""  # to end, and why
    was_asked: bool = False
    came: float | None = None  # when all supervisors had met: their ranks have as long again
    started: float = field(default_factory=time.monotonic)

    async def run(self) -> int:
        """Start the ranks, watch until all are done or one is not, end what is left; return the job's exit code."""
        verdict = None
        try:
            self._start()
            self._has_lost_files()
            while verdict is None and not self._all_done():
                await asyncio.sleep(TICK_SECONDS)
                self._look()
                verdict = self._verdict()
            if verdict is not None and isinstance(self.channel, Hub):
                await self.channel.give_verdict(verdict)
        finally:
            await self._end_children(verdict)
        self._has_lost_files()
        if 0 in self.job.environments:
            end = EndRecord(DONE, "done", time.time()) if verdict is None else _record_of(verdict)
            with contextlib.suppress(OSError):  # a full disk
                write_record(self.job.folder / "exit.json", end, sync=True)
        if verdict is None:
            return DONE
        retry = " A retry may help." if verdict.code in RETRY_HELPS else ""
        self.echo.say(f"{verdict.why.rstrip('.')}.{retry}", code=verdict.code)
        return verdict.code

    def _start(self) -> None:
        if 0 in self.job.environments:  # a later rank must not remove what rank 0's supervisor wrote meanwhile
            with contextlib.suppress(OSError):
                (self.job.folder / "exit.json").unlink(missing_ok=True)  # of an earlier run in the same folder
        for rank, environment in self.job.environments.items():
            folder = rank_folder(self.job.folder, rank)
            with contextlib.suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)
                for name in ("status.json", "ended.json", "memory.prof"):  # of an earlier run in the same folder
                    (folder / name).unlink(missing_ok=True)
            with _log(folder / "stdout.log") as out, _log(folder / "stderr.log") as err:
                process = subprocess.Popen(
                    self.job.command,
                    env={**environment, "SHARDINIT_SUPERVISED": str(os.getpid()), "PYTHONUNBUFFERED": "1"},
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    process_group=0,  # Ctrl-C reaches the supervisor alone
                    preexec_fn=_die_with_parent(),
                )
                tails = [Tail(_path_to_read(log), rank, name) for log, name in ((out, "stdout"), (err, "stderr"))]
            self.children.append(_Child(rank, process, tails, has_joined=self.job.processes == 1))

    def ask_to_end(self, why: str) -> None:
        """End the job at the next look, also from another thread or a signal handler."""
        self.asked = why

    @property
    def who(self) -> str:
        """Name of this supervisor."""
        return "the supervisor" if self.channel is None else f"rank {min(self.job.environments)}'s supervisor"

    def _look(self) -> None:
        """See what happened since the last look."""
        now = time.monotonic()
        if self.asked and not self.was_asked:
            self.was_asked = True
            self._note(End(None, PREEMPTED, self.asked))
        for child in self.children:
            for tail in child.tails:
                self.echo.lines(tail)
            if child.returncode is None and child.process.poll() is not None:
                child.returncode = child.process.returncode
                for tail in child.tails:
                    self.echo.lines(tail, last=True)
                status = self._status_of(child)
                words = (status and status.error) or child.tails[-1].last_words
                end = end_of(child.rank, child.returncode, child.who, words)
                self._write_end(child, end)
                self._note(end)
        if now - self.looked > LOOK_SECONDS:
            self.looked = now
            for child in self.children:
                if child.returncode is None:
                    self._look_whether_stopped(child, now)
            self._look_who_joined(now)
        self._look_who_finished(now)

    def _status_of(self, child: _Child) -> RankStatus | None:
        return read_record(rank_folder(self.job.folder, child.rank) / "status.json", RankStatus)

    def _note(self, end: End | None) -> None:
        if end is not None:
            self.ends.append(end)
            if isinstance(self.channel, Spoke):
                self.channel.report(end)

    def _look_whether_stopped(self, child: _Child, now: float) -> None:
        try:
            is_stopped = psutil.Process(child.process.pid).status() == psutil.STATUS_STOPPED
        except psutil.Error:
            return
        if not is_stopped:
            if child.stopped_since is not None:
                self.echo.say(f"{child.who} goes on")
            child.stopped_since = None
        elif child.stopped_since is None:
            child.stopped_since = now
            limit = self.job.stopped_seconds
            self.echo.say(f"{child.who} is stopped (SIGSTOP); the job ends if it is for {limit:g} s")
        elif now - child.stopped_since > self.job.stopped_seconds and not self.ends:
            why = f"{child.who} was stopped (SIGSTOP) for {self.job.stopped_seconds:g} s"
            self._note(End(child.rank, PEER_DIED, why))

    def _look_who_joined(self, now: float) -> None:
        patience = 0.0
        if self.channel is not None:
            patience = self.channel.patience
            if self.channel.everyone_came and self.came is None:
                self.came = now
        late = now - (self.came or self.started) > self.job.join_seconds + patience
        for child in self.children:
            if not child.has_joined and child.returncode is None:
                status = self._status_of(child)
                child.has_joined = status is not None and status.state not in BEFORE_JOINED
        if not late or self.ends:
            return
        if self.channel is not None and not self.channel.everyone_came:
            self._note(not_here(self.channel, self.job.join_seconds))
            return
        missing = [c.rank for c in self.children if not c.has_joined and c.returncode is None]
        if missing and not self._has_lost_files():
            why = f"{ranks_text(missing)} of {self.job.processes} did not join within {self.job.join_seconds:g} s"
            why = f"{why}. {self.job.hint}" if self.job.hint else why
            self._note(End(missing[0], NEVER_CAME, why))

    def _has_lost_files(self) -> bool:
        """Whether ranks cannot write their status, nor anything else, any more; says so once."""
        text = next(filter(None, (lost_text(self.job.folder, c.rank) for c in self.children)), "")
        if text and not self.has_warned:
            self.has_warned = True
            self.echo.say(text)
        return bool(text)

    def _look_who_finished(self, now: float) -> None:
        running = [c.rank for c in self.children if c.returncode is None]
        done = [c for c in self.children if c.returncode == DONE]
        if done and self.done_since is None:
            self.done_since = now
            if self.channel is not None:  # which is for one rank
                self.channel.report_done()
        if self.done_since is not None and now - self.done_since > FINISH_SECONDS and not self.ends:
            others = self.channel.unfinished() if isinstance(self.channel, Hub) else []
            who = ranks_text([*running, *others]) if running or others else "some other rank"
            self._note(End(None, PEER_DIED, f"{who} did not finish within {FINISH_SECONDS:g} s after the first"))

    def _all_done(self) -> bool:
        if not all(child.returncode == DONE for child in self.children):
            return False
        return self.channel is None or self.channel.everyone_done

    def _verdict(self) -> End | None:
        """Why the job ends, once it is clear."""
        if isinstance(self.channel, Spoke) and self.channel.ends:
            return self.channel.ends[0]
        ends = [*self.ends, *(self.channel.ends if isinstance(self.channel, Hub) else ())]
        if not ends:
            return None
        self.seen = time.monotonic() if self.seen is None else self.seen
        waited = time.monotonic() - self.seen
        if isinstance(self.channel, Spoke):  # rank 0 decides, if it can be told
            limit = UNTOLD_SECONDS if self.channel.writer is None else VERDICT_SECONDS
            never_came = self.channel.writer is None and cause_of(ends).code == NEVER_CAME
            return cause_of(ends) if waited > limit or never_came else None
        is_clear = any(not end.is_consequence for end in ends)
        return cause_of(ends) if waited > (SETTLE_SECONDS if is_clear else CAUSE_SECONDS) else None

    async def _end_children(self, verdict: End | None) -> None:
        """SIGTERM, then SIGKILL to what is left after the grace time; every process and its own children."""
        for number, seconds in ((signal.SIGTERM, self.job.grace_seconds), (signal.SIGKILL, 5.0)):
            left = [c for c in self.children if c.process.poll() is None]
            for child in left:
                os.killpg(child.process.pid, number)
                os.killpg(child.process.pid, signal.SIGCONT)  # a stopped process would not end before
            deadline = time.monotonic() + seconds
            while any(c.process.poll() is None for c in left) and time.monotonic() < deadline:
                await asyncio.sleep(TICK_SECONDS)
        for child in self.children:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.process.pid, signal.SIGKILL)  # what a rank started and left behind
            for tail in child.tails:
                self.echo.lines(tail, last=True)
            if child.returncode is None:
                child.returncode = child.process.returncode
                self._write_end(child, verdict)

    def _write_end(self, child: _Child, end: End | None) -> None:
        why = "done" if end is None else end.why
        folder = rank_folder(self.job.folder, child.rank)
        with contextlib.suppress(OSError):  # a full disk
            write_record(folder / "ended.json", EndRecord(child.returncode, why, time.time()), sync=True)


def _record_of(end: End) -> EndRecord:
    return EndRecord(end.code, end.why, time.time())


def _log(path: Path) -> BinaryIO:
    """Open a rank's log; where there is no room for one it is in memory (Linux), for as long as the job runs."""
    with contextlib.suppress(OSError):
        if not why_not_writable(path.parent):
            return open(path, "wb")
    return open(os.memfd_create(path.name) if sys.platform == "linux" else os.devnull, "wb")


def _path_to_read(log: BinaryIO) -> Path:
    return Path(f"/proc/self/fd/{log.fileno()}") if isinstance(log.name, int) else Path(log.name)


def _die_with_parent() -> Callable[[], None] | None:
    """Between fork and exec: be killed when the supervisor is, however it goes (Linux)."""
    if sys.platform != "linux":
        return None
    libc, parent = ctypes.CDLL(None), os.getpid()

    def set_signal() -> None:
        libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(PEER_DIED)

    return set_signal
