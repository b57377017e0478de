"""A run as the files of its folder show it: who is where, what each device holds, who is gone."""

from dataclasses import dataclass
from typing import Literal

from shardinit.spec.codec import STRICT

Condition = Literal["not started", "running", "stale", "unreadable", "gone", "ended"]


@dataclass(frozen=True, slots=True)
class DeviceView:
    """Memory of one device of a rank, in bytes; None where nothing tells.

    Attributes
    ----------
    name
        JAX's name, such as ``cpu:0``.
    held_bytes
        What arrays hold, by ``memory.prof``.
    planned_bytes
        The plan's figure.
    bytes_in_use, peak_bytes_in_use, bytes_limit
        The device's own figures.
    """

    name: str
    held_bytes: int | None
    planned_bytes: int | None
    bytes_in_use: int | None
    peak_bytes_in_use: int | None
    bytes_limit: int | None
    __pydantic_config__ = STRICT


@dataclass(frozen=True, slots=True)
class RankView:
    """What the files say of one rank.

    Attributes
    ----------
    condition
        ``gone`` without a process or with an exit code; ``ended`` when done.
    state, done, total
        Where it says it is, and how many pieces are made of how many.
    elapsed
        Seconds since its start.
    rss_bytes
        Resident memory of the process.
    status_age, profile_age
        Seconds since ``status.json`` and ``memory.prof`` were written.
    code
        Exit code.
    notes
        What is wrong, in sentences.
    """

    rank: int
    condition: Condition
    status_age: float | None
    profile_age: float | None
    code: int | None
    notes: tuple[str, ...]
    devices: tuple[DeviceView, ...]
    host: str | None = None
    pid: int | None = None
    state: str | None = None
    done: int | None = None
    total: int | None = None
    elapsed: float | None = None
    rss_bytes: int | None = None
    __pydantic_config__ = STRICT


@dataclass(frozen=True, slots=True)
class RunView:
    """A run as its files show it.

    Attributes
    ----------
    folder
        The run's folder.
    processes
        How many ranks there are to be.
    over
        Whether there is nothing more to come.
    notes
        What is wrong with the run's own files.
    ranks
        One view per rank.
    """

    folder: str
    processes: int
    over: bool
    notes: tuple[str, ...]
    ranks: tuple[RankView, ...]
    __pydantic_config__ = STRICT
