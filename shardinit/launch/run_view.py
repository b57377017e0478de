"""A run as the files of its folder show it: who is where, what each device holds, who is gone."""

import re
import socket
import time
from pathlib import Path
from typing import Any

import psutil

from shardinit.errors import ArgumentError
from shardinit.launch.folder import Record, rank_folder
from shardinit.launch.profile import device_bytes
from shardinit.spec.codec import from_json
from shardinit.spec.run import EndRecord, LaunchRecord, RankStatus
from shardinit.spec.run_view import Condition, DeviceView, RankView, RunView

BEAT = 1.0  # seconds between two writes of status.json, and of memory.prof
STALE_SECONDS = 5.0
TRIES, PAUSE = 3, 0.05
CLOCK_SLACK = 2.0


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
    launch, note = _read(folder / "launch.json", LaunchRecord)
    if launch is None and not note and not numbers:
        raise ArgumentError(
            f"there is no run in {folder}: neither launch.json nor a folder rank-0. {_nearest_run(folder)}"
        )
    statuses = {number: _read(rank_folder(folder, number) / "status.json", RankStatus) for number in numbers}
    if launch is not None:  # what is beyond is left from an earlier run in the same folder
        processes, numbers = launch.processes, {number for number in numbers if number < launch.processes}
    else:
        counts = [status.processes for status, _ in statuses.values() if status is not None]
        processes = max([*counts, *(number + 1 for number in numbers)], default=0)
    ranks = tuple(
        _read_rank(rank_folder(folder, number), number, *statuses.get(number, (None, "")), now=now)
        for number in sorted({*range(processes), *numbers})
    )
    return RunView(str(folder), processes, _is_over(folder, ranks, launch), (note,) if note else (), ranks)


def _read_rank(folder: Path, rank: int, status: RankStatus | None, note: str, now: float) -> RankView:
    ended, ended_note = _read(folder / "ended.json", EndRecord)
    held, profile_age, profile_note = _read_profile(folder / "memory.prof", now)
    age = None if status is None else max(now - status.time, 0.0)
    wrong = [text for text in (note, ended_note, profile_note) if text]
    condition = _condition(status, ended, note, now)
    if ended is not None and condition == "gone":
        wrong.append(ended.why or f"exit code {ended.code}")
    elif condition == "gone" and status is not None:
        wrong.append(f"its process pid={status.pid} is not there any more on {status.host}")
    elif condition in ("running", "stale"):
        late = _late_files(age, profile_age)
        condition = "stale" if late else "running"
        wrong += late
    own: dict[str, Any] = {}
    if status is not None:
        end = ended.time if ended is not None else status.time if condition == "gone" else now
        own = {name: getattr(status, name) for name in ("host", "pid", "state", "done", "total", "rss_bytes")}
        own["elapsed"] = None if end is None else max(end - status.started, 0.0)
    return RankView(
        rank=rank,
        condition=condition,
        status_age=age,
        profile_age=profile_age,
        code=None if ended is None else ended.code,
        notes=tuple(wrong),
        devices=_devices(status, held),
        **own,
    )


def _condition(status: RankStatus | None, ended: EndRecord | None, note: str, now: float) -> Condition:
    """Say what condition a rank is in, apart from the age of its files."""
    if ended is not None:
        return "ended" if ended.code == 0 else "gone"
    if status is None:
        return "unreadable" if note else "not started"
    # Containers may share the host's name and not its process ids: there a fresh file is the better witness.
    quiet = now - status.time > 2 * BEAT
    return "gone" if quiet and _is_dead(status) else "running"


def _is_dead(process: RankStatus | LaunchRecord) -> bool:
    """Whether a process of this host is known not to run any more; its id may belong to a later one."""
    if process.pid <= 0 or process.host != socket.gethostname():
        return False
    try:
        found = psutil.Process(process.pid)
        if found.status() == psutil.STATUS_ZOMBIE:
            return True
        return found.create_time() > process.started + CLOCK_SLACK
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


def _is_over(folder: Path, ranks: tuple[RankView, ...], launch: LaunchRecord | None) -> bool:
    if (folder / "exit.json").exists():
        return True
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


def _devices(status: RankStatus | None, held: dict[str, int] | None) -> tuple[DeviceView, ...]:
    """Join the status' devices with the profile's, which name a GPU or TPU in another way."""
    left = {_device_key(name): (name, size) for name, size in (held or {}).items()}
    planned = None if status is None else status.planned_bytes
    views = []
    for device in () if status is None else status.devices:
        # A profile leaves out a device that holds nothing.
        _, size = left.pop(_device_key(device.name), (device.name, None if held is None else 0))
        figures = (device.bytes_in_use, device.peak_bytes_in_use, device.bytes_limit)
        views.append(DeviceView(device.name, size, planned, *figures))
    views += [DeviceView(name, size, None, None, None, None) for _, (name, size) in sorted(left.items())]
    return tuple(views)


def _device_key(name: str) -> tuple[str, int]:
    """Platform and number: TFRT_CPU_0 is cpu:0, TPU_3(process=1,(1,1,0,0)) is tpu:3, cuda:1 is gpu:1."""
    match = re.search(r"(cpu|gpu|cuda|rocm|tpu)\D*(\d+)", name.lower())
    if match is None:
        return name, 0
    return {"cuda": "gpu", "rocm": "gpu"}.get(match[1], match[1]), int(match[2])


def _read(path: Path, of: type[Record]) -> tuple[Record | None, str]:
    """Read a record, with a note if the file is there but cannot be read, as when it is half written."""
    why = ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE)
        try:
            return from_json(path.read_text(encoding="utf-8"), of), ""
        except FileNotFoundError:
            return None, ""
        except (OSError, UnicodeDecodeError, ArgumentError) as error:
            why = str(error)
    return None, f"{path.name} cannot be read (yet): {why}"


def _nearest_run(folder: Path) -> str:
    """Say what to type instead: a run around or inside of a folder."""
    around = [p for p in (folder, folder.parent) if (p / "launch.json").is_file()]
    inside = sorted(folder.glob("*/launch.json"), key=lambda p: p.stat().st_mtime, reverse=True)
    for run in (*around, *(path.parent for path in inside)):
        return f"Try: shardinit top {run}"
    return "Give the folder of --run-folder, or the one that shardinit launch names when it starts."
