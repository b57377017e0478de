"""Memory of this host, which its CPU devices share."""

from collections.abc import Iterator
from pathlib import Path

import psutil

GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


def host_memory() -> int:
    """Bytes that this process and its neighbours can have: the machine's, or less in a container."""
    return min([psutil.virtual_memory().total, *_group_limits()])


def _group_limits() -> Iterator[int]:
    """Limits of the control groups (versions 1 and 2) that this process is in, and of those around them."""
    for folder, name in _own_groups():
        for place in (folder, *folder.parents):
            if not place.is_relative_to(GROUPS):
                break
            try:
                text = (place / name).read_text().strip()
            except OSError:
                continue
            if text.isdecimal():  # else it is "max"
                yield int(text)


def _own_groups() -> Iterator[tuple[Path, str]]:
    """Folder of each group that can limit memory, and the name of the file with the limit."""
    try:
        lines = OWN_GROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if not kinds:
            yield GROUPS / path.lstrip("/"), "memory.max"
        elif "memory" in kinds.split(","):
            yield GROUPS / "memory" / path.lstrip("/"), "memory.limit_in_bytes"
