"""What a run's folder holds: how the run was started, where each rank is, how it ended."""

from dataclasses import dataclass

from shardinit.spec.codec import STRICT


@dataclass(frozen=True, slots=True)
class LaunchRecord:
    """How a run was started, and by which process (``launch.json``); times are seconds since the epoch."""

    processes: int
    command: tuple[str, ...]
    started: float
    pid: int
    host: str
    __pydantic_config__ = STRICT


@dataclass(frozen=True, slots=True)
class OwnerRecord:
    """The process whose a rank's folder is (``owner.json``)."""

    pid: int
    host: str
    started: float
    __pydantic_config__ = STRICT


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    """A device of a rank, and its own figures of its memory in bytes; None where it has none."""

    name: str
    kind: str = ""
    bytes_in_use: int | None = None
    peak_bytes_in_use: int | None = None
    bytes_limit: int | None = None
    __pydantic_config__ = STRICT


@dataclass(frozen=True, slots=True)
class RankStatus:
    """Where a rank is (``status.json``).

    Attributes
    ----------
    rank, processes, pid, host
        Which process of how many, and where.
    started, time
        When it started, and when this was written.
    state, done, total
        The stage, and how many pieces are made of how many.
    rss_bytes
        Resident memory of the process.
    planned_bytes
        Bytes per device, as planned; None until it is.
    error
        What went wrong, in one line.
    devices
        Its devices, once it has joined the others.
    """

    rank: int
    processes: int
    pid: int
    host: str
    started: float
    time: float
    state: str
    done: int = 0
    total: int = 0
    rss_bytes: int | None = None
    planned_bytes: int | None = None
    error: str | None = None
    devices: tuple[DeviceStatus, ...] = ()
    __pydantic_config__ = STRICT


@dataclass(frozen=True, slots=True)
class EndRecord:
    """How a rank (``ended.json``) or a whole run (``exit.json``) ended: exit code, why, and when.

    There is no code of a process that even SIGKILL did not end.
    """

    code: int | None
    why: str = ""
    time: float | None = None
    __pydantic_config__ = STRICT


@dataclass(frozen=True, slots=True)
class GangSpec:
    """Processes to be started together on one machine.

    Attributes
    ----------
    arguments
        Of ``shardinit run``, the same for each.
    processes
        How many.
    devices_per_process
        Number of CPU devices that each emulates; None: the devices that are there.
    gpus
        One GPU for each process, as ``CUDA_VISIBLE_DEVICES`` names it; empty: all see the same.
    folder
        Folder of the run; None makes one in ``shardinit-runs``.
    port
        Port of process 0, the one after it is needed too; None: a free one.
    join_seconds, grace_seconds
        Deadline for all to join (None: 60), and time from SIGTERM to SIGKILL.
    """

    arguments: tuple[str, ...]
    processes: int
    devices_per_process: int | None = None
    gpus: tuple[str, ...] = ()
    folder: str | None = None
    port: int | None = None
    join_seconds: float | None = None
    grace_seconds: float = 10.0
    __pydantic_config__ = STRICT
