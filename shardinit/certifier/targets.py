"""What it takes to compile for a topology: which compiler, which settings, which card."""

import importlib.util
import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jax

from shardinit.errors import ArgumentError, CertificateError
from shardinit.spec.chips import read_name
from shardinit.spec.topology import Topology
from shardinit.versions import version_of

CUDA_PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin")

# libtpu asks a metadata server and other hosts for where it is; there is nothing to ask.
QUIET_TPU = {
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_LOG_DIR": "disabled",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@dataclass(frozen=True, slots=True)
class Target:
    """A compiler, ready to be called in child processes.

    Attributes
    ----------
    platform
        As JAX lowers for it: ``cpu``, ``cuda`` or ``tpu``.
    topology
        Arguments of ``get_topology_desc``; empty for CPU.
    environment
        Variables of the child processes.
    compiler
        Its name and version.
    """

    platform: str
    topology: dict[str, Any]
    environment: dict[str, str]
    compiler: str


def target_of(topology: Topology, card: str | os.PathLike | None = None) -> Target:
    """Find the compiler of a topology.

    Parameters
    ----------
    topology
        Made by name, or of CPU devices.
    card
        File with another card description (a ``GpuTargetConfigProto`` in text form) for CUDA.

    Raises
    ------
    CertificateError
        If the compiler is not installed; names the ``pip install`` line.
    ArgumentError
        If the topology does not say what its devices are, or there is no such card file.
    """
    wide = str(int(bool(jax.config.values["jax_enable_x64"])))
    quiet = {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3", "JAX_ENABLE_X64": wide}
    if card is not None and topology.platform != "gpu":
        raise ArgumentError(
            f"card={str(card)!r} describes a GPU, the topology is {topology.name or topology.platform}."
        )
    if topology.platform == "cpu":
        count = str(topology.devices)
        environment = {"JAX_NUM_CPU_DEVICES": count, "PJRT_NPROC": str(topology.devices + 1)}
        return Target("cpu", {}, quiet | environment, f"XLA CPU (jaxlib {version_of('jaxlib')})")
    if topology.name is None:
        raise ArgumentError(
            f"a certificate for {topology.devices} {topology.platform} devices needs to know which: "
            "plan for a topology by name, such as 'h100:4x8' or 'v5e:4x8'."
        )
    name = read_name(topology.name, topology.bytes_per_device if topology.platform == "gpu" else None)
    if topology.platform == "tpu":
        need("libtpu", "tpu", "the TPU compiler")
        kind = "TPU7x" if name.chip_name == "tpu7x" else name.chip_name
        shape = f"{kind}:{'x'.join(map(str, name.shape))}"
        slices = {"num_slices": name.slices} if name.slices > 1 else {}
        arguments = {"platform": "tpu", "topology_name": shape, **slices}
        return Target("tpu", arguments, quiet | QUIET_TPU, f"XLA TPU (libtpu {version_of('libtpu') or 'unknown'})")
    plugin = next((p for p in CUDA_PLUGINS if importlib.util.find_spec(p) is not None), CUDA_PLUGINS[0])
    need(plugin, "cuda12", "the CUDA compiler")
    hosts = name.shape[0] if len(name.shape) > 1 else 1
    arguments = {
        "platform": "cuda",
        "topology_name": "",
        "topology": f"1x{hosts}x{name.shape[-1]}",
        "target_config": read_card(name.chip_name, card),
    }
    return Target("cuda", arguments, quiet, f"XLA CUDA ({plugin.replace('_', '-')} {version_of(plugin) or 'unknown'})")


def read_card(chip: str, card: str | os.PathLike | None = None) -> str:
    """Read the description of a card: one that shardinit brings, or the caller's file."""
    if card is None:
        known = files("shardinit.certifier") / "cards" / f"{chip}.txtpb"
        if not known.is_file():
            raise ArgumentError(f"no description of the card {chip!r}. Pass its GpuTargetConfigProto as card (--card).")
        return known.read_text()
    path = Path(card)
    if not path.is_file():
        raise ArgumentError(f"no card description {path}. Pass a GpuTargetConfigProto in text form, or leave it out.")
    return path.read_text(encoding="utf-8", errors="replace")


def need(module: str, extra: str, what: str) -> None:
    """Refuse to go on without an optional package, and name the line that installs it."""
    if importlib.util.find_spec(module) is None:
        raise CertificateError(f"{what} is not installed. Run: pip install 'shardinit[{extra}]'")
