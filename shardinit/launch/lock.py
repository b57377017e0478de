"""A lock of a rank's folder: two runs in one folder would mix their lines and files."""

import errno
import fcntl
import json
import os
import socket
import time
from pathlib import Path

from shardinit.errors import LaunchError
from shardinit.launch.folder import rank_folder, read_json

NAME = "owner.json"
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # of some network file systems
_held: list[
    int
] = []  # descriptors, until the process ends, however it ends: the system lets go of a lock with its process


def hold(run: Path, rank: int) -> None:
    """Make a rank's folder this process's own.

    Raises
    ------
    LaunchError
        If a process that is alive holds it; it names who.
    OSError
        If the folder cannot be made or written.
    """
    folder = rank_folder(run, rank)
    folder.mkdir(parents=True, exist_ok=True)
    file = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in NO_LOCKS:
            return
        os.close(file)
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise
        raise LaunchError(f"the run's folder {run} is in use: {_who(folder, rank)}") from None
    _held.append(file)
    os.ftruncate(file, 0)
    os.write(file, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "started": time.time()}).encode())


def _who(folder: Path, rank: int) -> str:
    owner = read_json(folder / NAME) or {}
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(owner.get("started", 0)))
    who = f"pid={owner.get('pid', '?')} on {owner.get('host', '?')} has run its rank {rank} since {since}"
    return f"{who}. Wait for it, end it, or name another folder by --run-folder DIR"
