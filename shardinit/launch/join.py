"""Joining: from a ``LaunchSpec`` to a process of JAX's distributed runtime."""

import asyncio
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

from shardinit.errors import BackendStartedError, DisagreementError, JoinError
from shardinit.launch.control import meet
from shardinit.launch.exits import DISAGREE
from shardinit.launch.spec import LaunchSpec
from shardinit.wording import counted

CLUSTER_SECONDS, LOCAL_SECONDS = 600.0, 60.0
SHUTDOWN_SECONDS = 60


def join_seconds(spec: LaunchSpec) -> float:
    """Deadline for all processes to come: the variable ``SHARDINIT_JOIN_TIMEOUT``, else by where they run."""
    return float(os.environ.get("SHARDINIT_JOIN_TIMEOUT", LOCAL_SECONDS if spec.is_local else CLUSTER_SECONDS))


def is_supervised() -> bool:
    """Whether this process is the child of a supervisor of ours."""
    return os.environ.get("SHARDINIT_SUPERVISED") == str(os.getppid())


def _leave_at_once(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Show an exception that nobody caught and go: JAX would wait minutes for the other processes, then abort all."""
    sys.__excepthook__(kind, error, traceback)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def initialize(spec: LaunchSpec) -> None:
    """Make this process one of those that a spec tells of. Call it before anything starts JAX's backend.

    Process 0 prints to standard error what was decided and from which source. With one process only devices are
    narrowed, if the spec says so.
    Devices are narrowed only to ``spec.local_device_ids``: JAX's own detection, which does it by itself under some
    launchers, is off. An exception that nobody catches then ends the process at once, with code 1.

    Parameters
    ----------
    spec
        From ``detect``.

    Raises
    ------
    BackendStartedError
        If the backend has started, so that it is too late.
    JoinError
        If some process does not come within the deadline (60 s on one machine, 600 s else, or
        ``SHARDINIT_JOIN_TIMEOUT``); it names who.
    DisagreementError
        If processes were started for different numbers of processes.

    Examples
    --------
    >>> import os
    >>> from shardinit.launch import detect, initialize
    >>> initialize(detect(os.environ))
    """
    import jax

    from shardinit.private_jax import backends_are_initialized

    if spec.process_id == 0 or not spec.is_distributed:
        for warning in spec.warnings:
            print(f"warning: {warning}", file=sys.stderr, flush=True)
    if not spec.is_distributed:
        if spec.local_device_ids is not None:
            jax.config.update("jax_cuda_visible_devices", ",".join(map(str, spec.local_device_ids)))
        return
    if backends_are_initialized():
        raise BackendStartedError(
            f"cannot join {spec.processes} processes: JAX's backend has already started, with "
            f"{counted(jax.device_count(), 'device')}. Call shardinit.launch.initialize before the first array, "
            "jax.devices() or random key; import brainpy 2.8 starts it too."
        )
    if spec.process_id == 0:
        print(spec, file=sys.stderr, flush=True)
    seconds = join_seconds(spec)
    assert spec.coordinator is not None
    if is_supervised():  # supervisors meet by themselves; and a preempted rank need not outlive SIGTERM
        jax.config.update("jax_enable_preemption_service", False)
    else:
        meeting = meet(spec.process_id, spec.processes, spec.coordinator, seconds)
        with ThreadPoolExecutor(1) as thread:  # a notebook has an event loop of its own in this one
            end = thread.submit(asyncio.run, meeting).result()
        if end is not None:
            raise (DisagreementError if end.code == DISAGREE else JoinError)(end.why)
        sys.excepthook = _leave_at_once
    jax.config.update("jax_check_proxy_envs", False)  # spec.warnings says it where it matters
    os.environ.pop("JAX_LOCAL_DEVICE_IDS", None)  # the spec has it; JAX would apply it even where the spec says all
    jax.distributed.initialize(
        spec.coordinator,
        spec.processes,
        spec.process_id,
        None if spec.local_device_ids is None else list(spec.local_device_ids),
        cluster_detection_method="deactivate",
        initialization_timeout=int(seconds) + 30,  # the one who names the missing ranks comes first
        shutdown_timeout_seconds=SHUTDOWN_SECONDS,
    )
