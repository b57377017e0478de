"""Standard output and standard error, whose loss ends nothing, and standard output for one JSON object alone."""

import errno
import io
import os
import sys
from typing import TextIO

from shardinit.report.terminal import ON_TERMINALS


class _Stream(io.FileIO):
    """A standard stream that raises nothing: what cannot be written is lost, and ``error`` says why."""

    error: OSError | None = None

    def write(self, data) -> int:  # type: ignore[no-untyped-def, override]
        try:
            return super().write(data)
        except OSError as error:
            if error.errno != errno.EPIPE:  # a reader that has seen enough, such as head
                self.error = error
            return len(data)


_streams: dict[int, _Stream] = {}


def guard() -> None:
    """Put streams that raise nothing in the place of Python's own."""
    sys.stdout, sys.stderr = _text(1, sys.stdout), _text(2, sys.stderr)


def only_json() -> None:
    """Keep standard output for ``say``: whatever else writes to it, C code too, writes to standard error."""
    results = os.dup(1)
    os.dup2(2, 1)
    sys.stdout.flush()
    _streams[1] = _Stream(results, "w", closefd=False)


def is_json_alone() -> bool:
    """Whether standard output is for ``say`` alone."""
    return _streams[1].fileno() != 1


def say(text: str) -> None:
    """Write a line of results."""
    rest = text.encode(errors="replace") + b"\n"
    while rest:
        rest = rest[_streams[1].write(rest) :]


def lost() -> OSError | None:
    """Why standard output could not be written, if it could not."""
    sys.stdout.flush()
    return _streams[1].error


def warn(text: str) -> None:
    """Say one line of the command's own on standard error."""
    print(f"shardinit: {text}", file=sys.stderr, flush=True)


def _text(number: int, old: TextIO) -> io.TextIOWrapper:
    _streams[number] = _Stream(number, "w", closefd=False)
    encoding = getattr(old, "encoding", None) or "utf-8"  # None, if it was closed
    return io.TextIOWrapper(  # a line that is whole is written, in whatever way this ends
        io.BufferedWriter(_streams[number]), encoding, ON_TERMINALS, line_buffering=True, write_through=number == 2
    )
