"""The folder of a run: what each rank writes for those who watch.

::

    RUN/launch.json          how it was started
    RUN/plan.json            the plan
    RUN/rank-N/owner.json    whose process it is, locked while that lives
    RUN/rank-N/stdout.log, stderr.log
    RUN/rank-N/status.json   where the rank is, once a second and at each event
    RUN/rank-N/memory.prof   jax-smi's profile, with --smi
    RUN/rank-N/ended.json    how it ended, written by its supervisor
"""

import json
import os
from pathlib import Path
from typing import Any

VERSION = 1


def rank_folder(run: Path, rank: int) -> Path:
    """Folder of one rank."""
    return run / f"rank-{rank}"


def write_text(path: Path, text: str) -> None:
    """Write a file that a reader sees whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def write_json(path: Path, **fields: Any) -> None:
    """Write fields with the version of the format."""
    write_text(path, json.dumps({"version": VERSION, **fields}))


def read_json(path: Path) -> dict[str, Any] | None:
    """Read what ``write_json`` wrote; None if it is not there (yet)."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


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
    return f"warning: cannot write the run's folder {run}: {why}; logs and status are lost" if why else ""
