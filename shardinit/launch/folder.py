"""The folder of a run: what each rank writes for those who watch.

::

    RUN/launch.json          how it was started
    RUN/plan.json            the plan
    RUN/exit.json            how it ended: the last file that is written, and the one to believe
    RUN/rank-N/owner.json    whose process it is, locked while that lives
    RUN/rank-N/stdout.log, stderr.log
    RUN/rank-N/status.json   where the rank is, once a second and at each event
    RUN/rank-N/memory.prof   jax-smi's profile, with --smi
    RUN/rank-N/ended.json    how it ended, written by its supervisor

The records are those of ``shardinit.spec.run``.
"""

import errno
import os
from pathlib import Path
from typing import Any, TypeVar

from shardinit.errors import ArgumentError
from shardinit.spec.codec import from_json, to_json

Record = TypeVar("Record")

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a full disk, in any way


def rank_folder(run: Path, rank: int) -> Path:
    """Folder of one rank."""
    return run / f"rank-{rank}"


def write_text(path: Path, text: str, *, sync: bool = False) -> None:
    """Write a file that a reader sees whole or not at all; with ``sync`` also after the machine has lost power."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        if sync:
            file.flush()
            os.fsync(file.fileno())
    os.replace(temporary, path)
    if sync:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_record(path: Path, record: Any, *, sync: bool = False) -> None:
    """Write a record, whole."""
    write_text(path, to_json(record), sync=sync)


def read_record(path: Path, of: type[Record]) -> Record | None:
    """Read a record; None if it is not there (yet), or cannot be read."""
    try:
        return from_json(path.read_text(encoding="utf-8"), of)
    except (OSError, UnicodeDecodeError, ArgumentError):
        return None


def why_not_writable(folder: Path) -> str:
    """Why nothing can be written in a folder, such as for a full disk; empty if it can."""
    try:
        write_text(folder / "probe", "x" * 4096)
        (folder / "probe").unlink()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def lost_text(run: Path, rank: int) -> str:
    """What to say of a rank's files if they cannot be written; empty if they can."""
    why = why_not_writable(rank_folder(run, rank))
    return f"warning: cannot write the run's folder {shown(run)}: {why}; logs and status are lost" if why else ""


def shown(folder: Path) -> Path:
    """Shorten a path for people: from the working folder, if it is in there."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
