"""Processes: how they find each other, start, are watched and end. Importing it imports no JAX."""

from shardinit.launch.detect import detect
from shardinit.launch.launch_spec import LaunchSpec

__all__ = ["LaunchSpec", "detect", "initialize"]


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
    from shardinit.backend.join import join

    join(spec)
