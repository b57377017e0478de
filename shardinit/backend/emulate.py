"""Emulated CPU devices: a mesh on a laptop and in CI."""

import os
import resource
import sys
from pathlib import Path

import jax
import psutil

from shardinit.backend.private_jax import backends_are_initialized
from shardinit.errors import ArgumentError, ArgumentTypeError, BackendStartedError
from shardinit.wording import counted, kind_of, size_text

# Measured with jax 0.10.2, before there is any array: 4,096 devices are 420 MiB and as many threads, 100,000 are 19 GB.
DEVICE_BYTES = 200 * 1024
OTHER_THREADS = 300
MAPS_PER_THREAD = 2  # its stack, and the page that guards it


_emulated: set[int] = set()


def emulate_cpu(n: int) -> None:
    """Make JAX see ``n`` CPU devices. Call it before anything touches a device.

    Besides the number of devices it gives XLA's thread pool a thread more than there are devices: with
    as many or fewer, batched LAPACK calls (QR, Cholesky) on several devices wait for each other forever.

    Parameters
    ----------
    n
        Number of devices, at least 1.

    Raises
    ------
    BackendStartedError
        If JAX's backend has started, so that the setting would have no effect. A second call with the
        same ``n`` is not an error.
    ArgumentError, ArgumentTypeError
        If ``n`` is not an integer of at least 1, or more than this machine's memory and threads allow.

    Examples
    --------
    >>> import shardinit
    >>> shardinit.emulate_cpu(8)  # doctest: +SKIP
    """
    if isinstance(n, bool) or not isinstance(n, int):
        raise ArgumentTypeError(f"n={n!r} is {kind_of(n)}. Pass the number of devices as an int, such as 8.")
    if n < 1:
        raise ArgumentError(f"n={n} devices cannot be emulated. Pass at least 1.")
    if backends_are_initialized():
        if n in _emulated and jax.default_backend() == "cpu" and jax.device_count() == n:
            return  # a cell of a notebook that runs again
        raise BackendStartedError(
            f"cannot emulate n={n} CPU devices: the backend has already started, "
            f"with {counted(jax.device_count(), 'device')}. Call shardinit.emulate_cpu before the first array, "
            "jax.devices() or random key."
        )
    _check_room(n)
    os.environ["PJRT_NPROC"] = str(max(n + 1, os.cpu_count() or 1, int(os.environ.get("PJRT_NPROC", 0))))
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", n)
    _emulated.add(n)


def _check_room(n: int) -> None:
    """Refuse what would start for minutes, deaf to signals, and then be killed."""
    free = psutil.virtual_memory().available
    threads = _most_threads()
    most = max(min(free // DEVICE_BYTES, threads - OTHER_THREADS), 1)
    if n > most:
        raise ArgumentError(
            f"n={n} CPU devices cannot be emulated here: they take {size_text(n * DEVICE_BYTES)} and a thread each "
            f"before they hold an array, available memory={size_text(free)}, most threads={threads}. "
            f"Pass at most n={most}; planning needs no devices: Topology.named('cpu:{n}')."
        )


def _most_threads() -> int:
    """How many threads a process may have: the system's limits, and what this user has left."""
    limits = [_number("/proc/sys/kernel/threads-max"), _number("/proc/sys/kernel/pid_max")]
    maps = _number("/proc/sys/vm/max_map_count")
    limits += [None if maps is None else maps // MAPS_PER_THREAD, _number("/sys/fs/cgroup/pids.max")]
    own = resource.getrlimit(resource.RLIMIT_NPROC)[0]  # -1 is no limit
    return min(limit for limit in (*limits, own if own > 0 else sys.maxsize) if limit is not None)


def _number(path: str) -> int | None:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):
        return None
