"""What a supervisor tells its ranks by environment variables."""

import os

from shardinit.launch.launch_spec import LaunchSpec

CLUSTER_SECONDS, LOCAL_SECONDS = 600.0, 60.0


def join_seconds(spec: LaunchSpec) -> float:
    """Deadline for all processes to come: the variable ``SHARDINIT_JOIN_TIMEOUT``, else by where they run."""
    return float(os.environ.get("SHARDINIT_JOIN_TIMEOUT", LOCAL_SECONDS if spec.is_local else CLUSTER_SECONDS))


def is_supervised() -> bool:
    """Whether this process is the child of a supervisor of ours."""
    return os.environ.get("SHARDINIT_SUPERVISED") == str(os.getppid())
