"""Joining: from a ``LaunchSpec`` to a process of JAX's distributed runtime."""

import asyncio
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

import jax

from shardinit.backend.private_jax import backends_are_initialized
from shardinit.errors import BackendStartedError, DisagreementError, JoinError
from shardinit.launch.control import meet
from shardinit.launch.exits import DISAGREE
from shardinit.launch.launch_spec import LaunchSpec
from shardinit.launch.supervised import is_supervised, join_seconds
from shardinit.wording import counted

SHUTDOWN_SECONDS = 60


def _leave_at_once(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Show an exception that nobody caught and go: JAX would wait minutes for the other processes, then abort all."""
    sys.__excepthook__(kind, error, traceback)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def join(spec: LaunchSpec) -> None:
    """Make this process one of those that a spec tells of: ``shardinit.launch.initialize``."""
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
