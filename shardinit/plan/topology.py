"""What the planner knows of the devices: how many, of which kind, in which mesh."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax

from shardinit.errors import ArgumentError


@dataclass(frozen=True, slots=True)
class Topology:
    """Devices and, if the caller has one, the mesh they are in.

    Attributes
    ----------
    platform
        ``cpu``, ``gpu`` or ``tpu``.
    devices
        Number of devices, over all processes.
    mesh_axes
        Name and size of each axis of the caller's mesh; None lets the planner make one; ``()`` is no mesh
        at all, just the default device.

    Examples
    --------
    >>> Topology("cpu", 8, (("lanes", 4), ("model", 2)))
    Topology(platform='cpu', devices=8, mesh_axes=(('lanes', 4), ('model', 2)))
    """

    platform: str
    devices: int
    mesh_axes: tuple[tuple[str, int], ...] | None = None

    def __post_init__(self):
        size = self.devices if self.mesh_axes is None else math.prod(s for _, s in self.mesh_axes)
        if self.devices < 1 or size != self.devices:
            raise ArgumentError(
                f"a Topology of devices={self.devices} with mesh_axes={self.mesh_axes} cannot be. "
                "Use at least one device, and axes whose sizes multiply to devices."
            )

    @classmethod
    def local(cls) -> "Topology":
        """Take every device that JAX sees. Starts the backend."""
        return cls.from_devices(jax.devices())

    @classmethod
    def from_devices(cls, devices: Sequence[Any]) -> "Topology":
        """Take these devices, in a mesh that the planner makes."""
        return cls(devices[0].platform, len(devices))

    @classmethod
    def from_mesh(cls, mesh: Any) -> "Topology":
        """Take a ``jax.sharding.Mesh`` or ``AbstractMesh`` as it is."""
        axes = tuple((name, int(size)) for name, size in mesh.shape.items())
        device = mesh.devices.flat[0] if isinstance(mesh, jax.sharding.Mesh) else None
        return cls(device.platform if device else "cpu", math.prod(size for _, size in axes), axes)
