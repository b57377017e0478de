"""What the planner knows of the devices: how many, of which kind, how joined, in which mesh."""

import json
import math
import socket
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from shardinit.ambient import default_device
from shardinit.errors import ArgumentError, ArgumentTypeError
from shardinit.exchange import exchange, is_shared, processes_of
from shardinit.plan.chips import CHIPS, card_memory, read_name
from shardinit.plan.host import host_memory
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

    def __post_init__(self):
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

    @classmethod
    def local(cls) -> "Topology":
        """Take every device that JAX sees. Starts the backend."""
        return cls.from_devices(jax.devices())

    @classmethod
    def emulated(cls, devices: int) -> "Topology":
        """Describe CPU devices that this process alone emulates: they share the host's memory. Starts nothing."""
        return cls("cpu", devices, usable_bytes=host_memory() // max(devices, 1))

    @classmethod
    def default_device(cls) -> "Topology":
        """Take the device where JAX puts what names no other, without a mesh. Starts the backend."""
        device = default_device()
        memory, usable = (None, host_memory()) if device.platform == "cpu" else _memory([device])
        return cls(device.platform, 1, (), None, memory, usable)

    @classmethod
    def from_devices(cls, devices: Sequence[Any]) -> "Topology":
        """Take these devices, in a mesh that the planner makes."""
        if not isinstance(devices, Iterable):
            raise ArgumentTypeError(f"devices is {kind_of(devices)}. Pass a list of devices, such as jax.devices().")
        devices = list(devices)
        if not devices:
            raise ArgumentError("devices is empty. Pass at least one, such as jax.devices().")
        memory, usable = _memory(devices)
        return cls(devices[0].platform, len(devices), None, _fast(devices), memory, usable)

    @classmethod
    def from_mesh(cls, mesh: Any) -> "Topology":
        """Take a ``jax.sharding.Mesh`` as it is, or an ``AbstractMesh``, which has no devices, as one of CPUs."""
        if not isinstance(mesh, (jax.sharding.Mesh, jax.sharding.AbstractMesh)):
            raise ArgumentTypeError(f"mesh is {kind_of(mesh)}. Pass a jax.sharding.Mesh; for devices, from_devices.")
        axes = tuple((name, int(size)) for name, size in mesh.shape.items())
        count = math.prod(size for _, size in axes)
        if not isinstance(mesh, jax.sharding.Mesh):
            return cls("cpu", count, axes)
        memory, usable = _memory([*mesh.devices.flat])
        return cls(mesh.devices.flat[0].platform, count, axes, None, memory, usable)


def _fast(devices: Sequence[Any]) -> int | None:
    """Devices per slice (TPU) or process (others); of uneven ones what divides them all."""
    homes: dict[Any, int] = {}
    for device in devices:
        home = getattr(device, "slice_index", 0) if device.platform == "tpu" else device.process_index
        homes[home] = homes.get(home, 0) + 1
    return None if len(homes) == 1 else math.gcd(*homes.values())


def _memory(devices: Sequence[Any]) -> tuple[int | None, int | None]:
    """Published and usable bytes of real devices: their allocators' limit, or what their kind is known for."""
    if devices[0].platform == "cpu":
        return None, _share_of_host(devices)
    device = next((d for d in devices if d.process_index == jax.process_index()), devices[0])
    chip = next((c for c in CHIPS.values() if c.kind == device.device_kind and c.platform != "cpu"), None)
    try:
        limit = (device.memory_stats() or {}).get("bytes_limit")
    except Exception:  # a device of another process, or of a compile-only topology, has none
        limit = None
    ranks = processes_of(devices)
    if is_shared(ranks):  # every process must plan with the same number
        limit = min(int(text) for text in exchange("memory limit", str(limit or 0), ranks)) or None
    published = chip.memory if chip else limit
    return published, limit or (chip.usable if chip else None)


def _share_of_host(devices: Sequence[Any]) -> int:
    """Bytes for each of some CPU devices: all those of a host, whichever process has them, share its memory."""
    ranks = processes_of(devices)
    own = sum(d.process_index == jax.process_index() for d in devices)
    here = json.dumps([socket.gethostname(), host_memory(), own])
    told = [json.loads(t) for t in (exchange("host memory", here, ranks) if is_shared(ranks) else [here])]
    count: Counter[str] = Counter()
    for host, _, number in told:
        count[host] += number
    return min(memory // max(count[host], 1) for host, memory, _ in told)
