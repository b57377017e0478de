"""A lock of a rank's folder: two runs in one folder would mix their lines and files."""

import errno
import fcntl
import os
import socket
import time
from pathlib import Path

from shardinit.errors import LaunchError
from shardinit.launch.folder import rank_folder, read_record
from shardinit.spec.codec import to_json
from shardinit.spec.run import OwnerRecord

NAME = "owner.json"
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # of some network file systems
# Descriptors by folder, until they are released or the process ends, however it ends: the system lets go of a lock with
# its process. It would also give a process its own lock a second time.
_held: dict[Path, tuple[int, OwnerRecord]] = {}


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
    if (own := _held.get(folder.resolve())) is not None:  # to open the file again and close it would let go of the lock
        raise LaunchError(f"the run's folder {run} is in use: {_who(own[1], rank)}")
    file = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in NO_LOCKS:
            return
        os.close(file)
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise
        raise LaunchError(
            f"the run's folder {run} is in use: {_who(read_record(folder / NAME, OwnerRecord), rank)}"
        ) from None
    owner = OwnerRecord(os.getpid(), socket.gethostname(), time.time())
    _held[folder.resolve()] = file, owner
    os.ftruncate(file, 0)
    os.write(file, to_json(owner).encode())


def release(run: Path, rank: int) -> None:
    """Let others have a rank's folder, if it was held."""
    held = _held.pop(rank_folder(run, rank).resolve(), None)
    if held is not None:
        os.close(held[0])


def _who(owner: OwnerRecord | None, rank: int) -> str:
    who = f"another process has run its rank {rank}"
    if owner is not None:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(owner.started))
        who = f"pid={owner.pid} on {owner.host} has run its rank {rank} since {since}"
    return f"{who}. Wait for it, end it, or name another folder by --run-folder DIR"
