"""What the planner knows of the devices: how many, of which kind, how joined, in which mesh."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shardinit.errors import ArgumentError, ArgumentTypeError
from shardinit.spec.chips import CHIPS, card_memory, read_name
from shardinit.spec.codec import STRICT
from shardinit.wording import kind_of

MOST_DEVICES = 2**24  # planning takes as long as it takes to find their divisors


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
    fast
        Number of devices that the fast network joins (a node, a slice); None: all of them.
    bytes_per_device
        Published memory of one device; None if it is not known (emulated devices share the host's).
    usable_bytes
        What a program can really have of it: the compiler's own limit on TPU, the allocator's share on GPU; of
        this machine's CPU devices each has its share of the host's memory.
    name
        ``h100:4x8``, if it was made by name.

    Examples
    --------
    >>> Topology("cpu", 8, (("lanes", 4), ("model", 2))).devices
    8
    >>> pod = Topology.named("2xv5e:16x16")
    >>> pod.devices, pod.fast, pod.usable_bytes
    (512, 256, 16911433728)
    """

    platform: str
    devices: int
    mesh_axes: tuple[tuple[str, int], ...] | None = None
    fast: int | None = None
    bytes_per_device: int | None = None
    usable_bytes: int | None = None
    name: str | None = None
    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if isinstance(self.devices, bool) or not isinstance(self.devices, int):
            raise ArgumentTypeError(f"devices={self.devices!r} is {kind_of(self.devices)}. Pass an int, such as 8.")
        if self.platform in CHIPS and CHIPS[self.platform].platform != self.platform:
            raise ArgumentError(
                f"a Topology of platform={self.platform!r} cannot be: that is a device. Use "
                f"Topology.named('{self.platform}:...'), which knows its memory, or platform="
                f"'{CHIPS[self.platform].platform}'."
            )
        size = self.devices if self.mesh_axes is None else math.prod(s for _, s in self.mesh_axes)
        if self.devices < 1 or size != self.devices:
            raise ArgumentError(
                f"a Topology of devices={self.devices} with mesh_axes={self.mesh_axes} cannot be. "
                "Use at least one device, and axes whose sizes multiply to devices."
            )
        if self.devices > MOST_DEVICES:
            raise ArgumentError(f"a Topology of devices={self.devices} is too large. Use at most {MOST_DEVICES}.")
        if self.fast is not None and (self.fast < 1 or self.devices % self.fast):
            raise ArgumentError(
                f"a Topology of devices={self.devices} cannot be joined by fast={self.fast}. "
                "Use a number of devices per node or slice that divides devices."
            )

    @property
    def fast_devices(self) -> int:
        """Number of devices that the fast network joins."""
        return self.devices if self.fast is None else self.fast

    @classmethod
    def named(cls, name: str, card: Any = None) -> "Topology":
        """Describe devices that need not be there.

        ``cpu:8``; ``a100:4x8``, ``h100:4x8``, ``h200:4x8`` are processes x devices of each;
        ``v5e:4x8``, ``v6e:16x16``, ``v5p:8x16x16`` are slices, ``2xv5e:16x16`` two of them. ``gpu:2x4@48GiB`` and
        ``cpu:8@2GiB`` say the memory of each device; so does ``card``, a file that describes a GPU.

        Raises
        ------
        ArgumentError
            If there is no such device or shape; names the nearest that exist.
        """
        if not isinstance(name, str):
            raise ArgumentTypeError(f"topology name={name!r} is {kind_of(name)}. Pass a str such as 'h100:4x8'.")
        of_cpus = name.strip().lower().startswith("cpu")  # what the card says does not matter then
        found = read_name(name, None if card is None or of_cpus else card_memory(card))
        if card is not None and found.chip.platform != "gpu":
            raise ArgumentError(f"card={str(card)!r} describes a GPU, the topology is {name}. Leave one of them out.")
        fast = None if found.fast == found.devices else found.fast
        chip = found.chip
        return cls(chip.platform, found.devices, None, fast, chip.memory, chip.usable, name.strip().lower())

    # What is there: for users, by a floor above. Nothing of planning needs it.

    @classmethod
    def local(cls) -> "Topology":
        """Take every device that JAX sees. Starts the backend."""
        from shardinit.backend.topologies import local_topology

        return local_topology()

    @classmethod
    def emulated(cls, devices: int) -> "Topology":
        """Describe CPU devices that this process alone emulates: they share the host's memory. Starts nothing."""
        from shardinit.backend.topologies import emulated_topology

        return emulated_topology(devices)

    @classmethod
    def default_device(cls) -> "Topology":
        """Take the device where JAX puts what names no other, without a mesh. Starts the backend."""
        from shardinit.backend.topologies import default_topology

        return default_topology()

    @classmethod
    def from_devices(cls, devices: Sequence[Any]) -> "Topology":
        """Take these devices, in a mesh that the planner makes."""
        from shardinit.backend.topologies import topology_of_devices

        return topology_of_devices(devices)

    @classmethod
    def from_mesh(cls, mesh: Any) -> "Topology":
        """Take a ``jax.sharding.Mesh`` as it is, or an ``AbstractMesh``, which has no devices, as one of CPUs."""
        from shardinit.backend.topologies import topology_of_mesh

        return topology_of_mesh(mesh)
