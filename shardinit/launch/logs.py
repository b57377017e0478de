"""What ranks print, copied with the rank before each line; and what the supervisor says."""

import contextlib
import json
import os
import queue
import re
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from shardinit.report.terminal import ON_TERMINALS

# JAX's runtime reports a lost peer as a wall of text in every process. The supervisor says it in a sentence, and
# the text stays in the rank's own log.
_NOISE = re.compile(r"^[EF]\d{4} .*(coordination_service|JAX distributed service)")
_MORE_NOISE = re.compile(r"^Additional GRPC error|^:\w+:Error received|^\s*@\s+0x|^\*\*\* Check failure|^$")


_NO_WORDS = re.compile(r"$|[+{ ]|process \d+ of \d+|warning: ")  # log lines, and how the processes were found

MOST_WAITING = 10_000  # lines
UNREAD_SECONDS = 5.0


@dataclass(slots=True, eq=False)
class Tail:
    """The end of a file that another process writes; ``rank`` and ``stream`` say whose it is."""

    path: Path
    rank: int
    stream: str
    file: BinaryIO | None = None  # kept open: somebody may remove the folder meanwhile
    rest: bytes = b""
    last_words: str = ""
    in_noise: bool = False

    def __post_init__(self) -> None:
        with contextlib.suppress(OSError):
            self.file = open(self.path, "rb")  # noqa: SIM115

    def new_lines(self, last: bool = False) -> list[str]:
        """Whole lines written since the last call, and the unfinished one if it is the last call."""
        found = b"" if self.file is None else self.file.read()
        *lines, self.rest = (self.rest + found).split(b"\n")
        if last and self.rest:
            lines.append(self.rest)
            self.rest = b""
        texts = [line.decode(sys.stdout.encoding, "replace") for line in lines]  # ranks write as this process does
        words = (text.removeprefix("shardinit: ") for text in reversed(texts) if not _NO_WORDS.match(text))
        self.last_words = next(words, self.last_words)
        return texts

    def is_noise(self, line: str) -> bool:
        """Whether a line, which follows the one asked for before, is part of the runtime's report of a lost peer."""
        self.in_noise = bool(_NOISE.match(line) or (self.in_noise and _MORE_NOISE.match(line)))
        return self.in_noise


@dataclass(slots=True, eq=False)
class Echo:
    """Copies lines of ranks to standard output and standard error.

    Attributes
    ----------
    as_json
        Whether standard error carries one JSON object per line (``--log json``).
    raw_rank
        Rank whose standard output is passed on as it is (``--json``); that of all others goes to standard error.
    """

    as_json: bool = False
    raw_rank: int | None = None
    started: float = field(default_factory=time.time)
    _writer: "_Writer" = field(default_factory=lambda: _Writer())

    def lines(self, tail: Tail, last: bool = False) -> None:
        """Copy what is new."""
        for line in tail.new_lines(last):
            if self.raw_rank is not None and tail.stream == "stdout" and tail.rank == self.raw_rank:
                self._writer.write(1, line, keep=True)
            elif not tail.is_noise(line):
                self._copy(tail, line)

    def _copy(self, tail: Tail, line: str) -> None:
        if self.as_json:
            is_event = line.startswith('{"event"')
            fields = {"event": "line", "rank": tail.rank, "stream": tail.stream, "line": line}
            self._writer.write(2, line if is_event else json.dumps(fields))
        else:
            to_stderr = tail.stream == "stderr" or self.raw_rank is not None
            self._writer.write(2 if to_stderr else 1, f"[{tail.rank}] {line}")

    def say(self, text: str, **fields: object) -> None:
        """Say something of the supervisor's own."""
        elapsed = round(time.time() - self.started, 3)
        if self.as_json:
            entry = {"event": "supervisor", "time": time.time(), "elapsed": elapsed, "text": text, **fields}
            self._writer.write(2, json.dumps(entry), keep=True)
        else:
            self._writer.write(2, f"shardinit: {text}", keep=True)

    def finish(self) -> OSError | None:
        """Wait until everything is written, or nobody has read for a while; why something could not be, if so."""
        self._writer.finish()
        return self._writer.error


class _Writer:
    """Writes lines in a thread: whoever does not read them (a pager, a full pipe) must not stop the supervisor.

    Straight to the file descriptors, so that no lock of a stream is held when the process ends.
    """

    def __init__(self) -> None:
        self.lines: queue.Queue[tuple[int, bytes]] = queue.Queue()
        self.error: OSError | None = None
        threading.Thread(target=self._write_all, daemon=True, name="shardinit-echo").start()

    def write(self, descriptor: int, line: str, keep: bool = False) -> None:
        """Queue a line; one that need not be kept is dropped if too many wait: it is in the run's folder."""
        if keep or self.lines.qsize() < MOST_WAITING:
            self.lines.put((descriptor, line.encode(sys.stdout.encoding, ON_TERMINALS) + b"\n"))

    def finish(self) -> None:
        waiting, since = self.lines.unfinished_tasks, time.monotonic()
        while self.lines.unfinished_tasks and time.monotonic() - since < UNREAD_SECONDS:
            if self.lines.unfinished_tasks != waiting:
                waiting, since = self.lines.unfinished_tasks, time.monotonic()
            time.sleep(0.01)

    def _write_all(self) -> None:
        while True:
            descriptor, rest = self.lines.get()
            try:
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
            except BrokenPipeError:  # a reader that has seen enough
                pass
            except OSError as error:  # a full disk
                self.error = error
            self.lines.task_done()
