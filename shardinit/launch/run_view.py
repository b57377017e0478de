"""A run as the files of its folder show it: who is where, what each device holds, who is gone."""

import re
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import psutil

from shardinit.errors import ArgumentError
from shardinit.launch.folder import VERSION, rank_folder, read_json
from shardinit.launch.profile import device_bytes

Kind = TypeVar("Kind")
Condition = Literal["not started", "running", "stale", "unreadable", "gone", "ended"]

BEAT = 1.0  # seconds between two writes of status.json, and of memory.prof
STALE_SECONDS = 5.0
TRIES, PAUSE = 3, 0.05
CLOCK_SLACK = 2.0


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
    host: str | None
    pid: int | None
    state: str | None
    done: int | None
    total: int | None
    elapsed: float | None
    rss_bytes: int | None
    status_age: float | None
    profile_age: float | None
    code: int | None
    notes: tuple[str, ...]
    devices: tuple[DeviceView, ...]


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


def read_run(folder: Path, now: float) -> RunView:
    """Read a run's folder.

    Parameters
    ----------
    folder
        The folder that ``shardinit launch`` or ``shardinit run`` writes.
    now
        Seconds since the epoch.

    Raises
    ------
    ArgumentError
        If the folder is not there or has no run in it.
    """
    if not folder.is_dir():
        parent = next((p for p in folder.absolute().parents if p.is_dir()), Path("/"))
        raise ArgumentError(f"there is no folder {folder}. {_nearest_run(parent)}")
    numbers = {int(p.name[5:]) for p in folder.glob("rank-*") if p.name[5:].isdecimal()}
    launch, note = _read(folder / "launch.json")
    if launch is None and not note and not numbers:
        raise ArgumentError(
            f"there is no run in {folder}: neither launch.json nor a folder rank-0. {_nearest_run(folder)}"
        )
    statuses = {number: _read(rank_folder(folder, number) / "status.json") for number in numbers}
    counts = [_field(status, "processes", int) or 0 for status, _ in statuses.values()]
    processes = _field(launch, "processes", int) or max([*counts, *(number + 1 for number in numbers)], default=0)
    if _field(launch, "processes", int):  # what is beyond is left from an earlier run in the same folder
        numbers = {number for number in numbers if number < processes}
    ranks = tuple(
        _read_rank(rank_folder(folder, number), number, *statuses.get(number, (None, "")), now=now)
        for number in sorted({*range(processes), *numbers})
    )
    return RunView(str(folder), processes, _is_over(ranks, launch), (note,) if note else (), ranks)


def _read_rank(folder: Path, rank: int, status: dict[str, Any] | None, note: str, now: float) -> RankView:
    ended, ended_note = _read(folder / "ended.json")
    held, profile_age, profile_note = _read_profile(folder / "memory.prof", now)
    written, started = _field(status, "time", float), _field(status, "started", float)
    age = None if written is None else max(now - written, 0.0)
    wrong = [text for text in (note, ended_note, profile_note) if text]
    condition = _condition(status, ended, note, now)
    if ended is not None and condition == "gone":
        wrong.append(_field(ended, "why", str) or f"exit code {_field(ended, 'code', int)}")
    elif condition == "gone":
        pid, host = _field(status, "pid", int), _field(status, "host", str)
        wrong.append(f"its process pid={pid} is not there any more on {host}")
    elif condition in ("running", "stale"):
        late = _late_files(age, profile_age)
        condition = "stale" if late else "running"
        wrong += late
    end = _field(ended, "time", float) if ended else written if condition == "gone" else now
    return RankView(
        rank=rank,
        condition=condition,
        host=_field(status, "host", str),
        pid=_field(status, "pid", int),
        state=_field(status, "state", str),
        done=_field(status, "done", int),
        total=_field(status, "total", int),
        elapsed=None if started is None or end is None else max(end - started, 0.0),
        rss_bytes=_field(status, "rss_bytes", int),
        status_age=age,
        profile_age=profile_age,
        code=_field(ended, "code", int),
        notes=tuple(wrong),
        devices=_devices(status, held),
    )


def _condition(status: dict[str, Any] | None, ended: dict[str, Any] | None, note: str, now: float) -> Condition:
    """Say how a rank is, the age of its files aside."""
    if ended is not None:
        return "ended" if _field(ended, "code", int) == 0 else "gone"
    if status is None:
        return "unreadable" if note else "not started"
    # Containers may share the host's name and not its process ids: there a fresh file is the better witness.
    quiet = now - (_field(status, "time", float) or 0.0) > 2 * BEAT
    return "gone" if quiet and _is_dead(status) else "running"


def _is_dead(process: dict[str, Any]) -> bool:
    """Whether a process of this host is known not to run any more; its id may belong to a later one."""
    pid, started = _field(process, "pid", int), _field(process, "started", float)
    if pid is None or pid <= 0 or _field(process, "host", str) != socket.gethostname():
        return False
    try:
        found = psutil.Process(pid)
        if found.status() == psutil.STATUS_ZOMBIE:
            return True
        return started is not None and found.create_time() > started + CLOCK_SLACK
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


def _is_over(ranks: tuple[RankView, ...], launch: dict[str, Any] | None) -> bool:
    if not ranks or any(rank.condition in ("running", "stale", "unreadable") for rank in ranks):
        return False
    missing = any(rank.condition == "not started" for rank in ranks)
    return not missing or (launch is not None and _is_dead(launch))


def _late_files(status_age: float | None, profile_age: float | None) -> list[str]:
    return [
        f"{name} is {age:.0f} s old, usually {BEAT:g} s"
        for name, age in (("status.json", status_age), ("memory.prof", profile_age))
        if age is not None and age > STALE_SECONDS
    ]


def _read_profile(path: Path, now: float) -> tuple[dict[str, int] | None, float | None, str]:
    try:
        age = max(now - path.stat().st_mtime, 0.0)
        return device_bytes(path), age, ""
    except FileNotFoundError:
        return None, None, ""
    except (ArgumentError, OSError) as error:
        return None, None, str(error)


def _devices(status: dict[str, Any] | None, held: dict[str, int] | None) -> tuple[DeviceView, ...]:
    """Join the status' devices with the profile's, which name a GPU or TPU in another way."""
    left = {_device_key(name): (name, size) for name, size in (held or {}).items()}
    found = (status or {}).get("devices")
    planned = _field(status, "planned_bytes", int)
    views = []
    for device in found if isinstance(found, list) else []:
        name = _field(device, "name", str) or "?"
        # A profile leaves out a device that holds nothing.
        _, size = left.pop(_device_key(name), (name, None if held is None else 0))
        figures = [_field(device, key, int) for key in ("bytes_in_use", "peak_bytes_in_use", "bytes_limit")]
        views.append(DeviceView(name, size, planned, *figures))
    views += [DeviceView(name, size, None, None, None, None) for _, (name, size) in sorted(left.items())]
    return tuple(views)


def _device_key(name: str) -> tuple[str, int]:
    """Platform and number: TFRT_CPU_0 is cpu:0, TPU_3(process=1,(1,1,0,0)) is tpu:3, cuda:1 is gpu:1."""
    match = re.search(r"(cpu|gpu|cuda|rocm|tpu)\D*(\d+)", name.lower())
    if match is None:
        return name, 0
    return {"cuda": "gpu", "rocm": "gpu"}.get(match[1], match[1]), int(match[2])


def _read(path: Path) -> tuple[dict[str, Any] | None, str]:
    """Read a JSON object, with a note if the file is there but cannot be read, as when it is half written."""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE)
        found = read_json(path)
        if found is not None:
            version = found.get("version")
            other = f"{path.name} has version={version!r}, this shardinit reads version={VERSION}"
            return found, "" if version == VERSION else other
        if not path.exists():
            return None, ""
    return None, f"{path.name} cannot be read yet: half written, or no JSON object"


def _nearest_run(folder: Path) -> str:
    """Say what to type instead: a run around or inside of a folder."""
    around = [p for p in (folder, folder.parent) if (p / "launch.json").is_file()]
    inside = sorted(folder.glob("*/launch.json"), key=lambda p: p.stat().st_mtime, reverse=True)
    for run in (*around, *(path.parent for path in inside)):
        return f"Try: shardinit top {run}"
    return "Give the folder of --run-folder, or the one that shardinit launch names when it starts."


def _field(fields: Any, name: str, kind: type[Kind]) -> Kind | None:
    value = fields.get(name) if isinstance(fields, dict) else None
    wanted: Any = (int, float) if kind is float else kind
    return value if isinstance(value, wanted) and not isinstance(value, bool) else None
