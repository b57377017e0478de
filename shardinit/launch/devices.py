"""Which of the visible devices are this process's: never narrowed without saying so."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from shardinit.errors import LaunchError
from shardinit.launch.variables import Setting, Variables

VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
OF_SLURM = ("SLURM_GPUS_ON_NODE", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS")
GPU_PLATFORMS = {"cuda", "gpu", "rocm"}
FIX = "or pass --local-devices all, or the positions of this process's own, such as --local-devices 0,1"


@dataclass(frozen=True, slots=True)
class LocalDevices:
    """Positions among the visible devices (None: all), who said so, and what may go wrong."""

    ids: tuple[int, ...] | None
    source: str
    warning: str | None = None


def choose_local_devices(
    env: Mapping[str, str], request: str | None, launcher: str, processes_on_node: int | None, local_rank: int | None
) -> LocalDevices:
    """Give this process its visible devices: as asked, or an equal share where several processes share GPUs.

    Raises
    ------
    LaunchError
        If ``request`` cannot be read, or the GPUs cannot be shared equally.
    """
    if request not in (None, "auto"):
        return LocalDevices(None, "--local-devices") if request == "all" else _listed(request, "--local-devices")
    stated = Variables(env).text("JAX_LOCAL_DEVICE_IDS")
    if stated:
        return _listed(stated.value, stated.source)
    if processes_on_node is None or local_rank is None or processes_on_node < 2 or not _may_have_gpus(env, launcher):
        return LocalDevices(None, "default")
    gpus = _visible_gpus(env, () if launcher == "local" else OF_SLURM)
    if gpus is None:
        return LocalDevices(None, "default", _unknown(env, launcher, processes_on_node))
    return _share(env, gpus, processes_on_node, local_rank)


def _listed(text: str | None, source: str) -> LocalDevices:
    pieces = [piece.strip() for piece in (text or "").split(",")]
    ids = tuple(int(piece) for piece in pieces if piece.isascii() and piece.isdigit())
    if len(ids) != len(pieces) or len(set(ids)) != len(ids):
        raise LaunchError(
            f"{source}={text} is not a list of distinct positions of devices. Write auto, all, or positions from 0 "
            "such as 0,1."
            if source.startswith("--")
            else f"{source}={text} is not a list of distinct positions of devices. Write positions from 0, such as 0,1."
        )
    return LocalDevices(ids, source)


def _share(env: Mapping[str, str], gpus: Setting[int], processes: int, rank: int) -> LocalDevices:
    """Split the GPUs that all processes of the node see into equal runs, by local rank."""
    if gpus.value < 2:
        return LocalDevices(None, f"{gpus.source} shows {gpus.value}")
    if gpus.source in VISIBLE and _is_bound(env, gpus.value, processes):
        return LocalDevices(None, f"{gpus.source}, which SLURM has narrowed to this task's {gpus.value} GPUs")
    share, rest = divmod(gpus.value, processes)
    if rest:
        raise LaunchError(
            f"the GPUs of this node cannot be shared equally: processes_on_node={processes}, GPUs={gpus.value} "
            f"({gpus.source}). Start 1 or {gpus.value} processes per node, {FIX}."
        )
    each = "one GPU" if share == 1 else f"{share} GPUs"
    ids = tuple(range(rank * share, (rank + 1) * share))
    return LocalDevices(ids, f"{each} per process: {gpus.source} shows {gpus.value}, this is local rank {rank}")


def _is_bound(env: Mapping[str, str], visible: int, processes: int) -> bool:
    """Whether SLURM bound these GPUs to this task (--gpus-per-task, --gpu-bind), so that they are its own."""
    per_task = Variables(env).text("SLURM_GPUS_PER_TASK")
    bound_by_task = per_task is not None and _count(per_task.value) == visible
    on_node = _visible_gpus(env, OF_SLURM, visible=())
    return bound_by_task or (on_node is not None and visible * processes <= on_node.value)


def _visible_gpus(
    env: Mapping[str, str], of_slurm: tuple[str, ...], visible: tuple[str, ...] = VISIBLE
) -> Setting[int] | None:
    for name in visible:
        if name in env:
            # CUDA stops at the first -1, and sees nothing if the variable is empty.
            listed = re.split(r"(?:^|,)\s*(?:-1|NoDevFiles)\b", env[name].strip())[0]
            return Setting(len([piece for piece in listed.split(",") if piece.strip()]), name)
    for name in of_slurm:
        found = Variables(env).text(name)
        number = (
            None if found is None else _count(found.value) if name == "SLURM_GPUS_ON_NODE" else _length(found.value)
        )
        if number is not None:
            return Setting(number, name)
    return None


def _count(text: str) -> int | None:
    """Read SLURM's ``4``, ``gpu:4`` or ``a100:4(S:0-1)``."""
    found = re.fullmatch(r"(?:.*:)?(\d+)(?:\(.*\))?", text, re.ASCII)
    return int(found[1]) if found else None


def _length(text: str) -> int:
    """Count SLURM's ``0,1,4-7``."""
    total = 0
    for piece in text.split(","):
        first, _, last = piece.partition("-")
        total += int(last) - int(first) + 1 if first.isdigit() and last.isdigit() else 1
    return total


def _may_have_gpus(env: Mapping[str, str], launcher: str) -> bool:
    platforms = Variables(env).text("JAX_PLATFORMS", "JAX_PLATFORM_NAME")
    named = {name.strip().lower() for name in platforms.value.split(",")} if platforms else GPU_PLATFORMS
    return launcher != "tpu" and not GPU_PLATFORMS.isdisjoint(named)


def _unknown(env: Mapping[str, str], launcher: str, processes: int) -> str | None:
    """Warn, unless the launcher would have told: SLURM names the GPUs that it gave, `shardinit launch` chose itself."""
    if launcher in ("local", "slurm") and not Variables(env).has("JAX_PLATFORMS"):
        return None
    return (
        f"{processes} processes share this node, and nothing says how many GPUs it has: each process takes all that "
        "it sees. For one GPU each, export CUDA_VISIBLE_DEVICES=0,1,... or pass --local-devices; without GPUs, "
        "export JAX_PLATFORMS=cpu."
    )
