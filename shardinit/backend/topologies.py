"""Topologies of devices that are there: all of them, a mesh, the default device."""

import json
import math
import socket
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import jax

from shardinit.backend.ambient import default_device
from shardinit.backend.exchange import exchange, is_shared, processes_of
from shardinit.backend.host_memory import host_memory
from shardinit.errors import ArgumentError, ArgumentTypeError
from shardinit.spec.chips import CHIPS
from shardinit.spec.topology import Topology
from shardinit.wording import kind_of


def local_topology() -> Topology:
    """Every device that JAX sees. Starts the backend."""
    return topology_of_devices(jax.devices())


def emulated_topology(devices: int) -> Topology:
    """CPU devices that this process alone emulates: they share the host's memory. Starts nothing."""
    return Topology("cpu", devices, usable_bytes=host_memory() // max(devices, 1))


def default_topology() -> Topology:
    """The device where JAX puts what names no other, without a mesh. Starts the backend."""
    device = default_device()
    memory, usable = (None, host_memory()) if device.platform == "cpu" else _memory([device])
    return Topology(device.platform, 1, (), None, memory, usable)


def topology_of_devices(devices: Sequence[Any]) -> Topology:
    """These devices, in a mesh that the planner makes."""
    if not isinstance(devices, Iterable):
        raise ArgumentTypeError(f"devices is {kind_of(devices)}. Pass a list of devices, such as jax.devices().")
    devices = list(devices)
    if not devices:
        raise ArgumentError("devices is empty. Pass at least one, such as jax.devices().")
    memory, usable = _memory(devices)
    return Topology(devices[0].platform, len(devices), None, _fast(devices), memory, usable)


def topology_of_mesh(mesh: Any) -> Topology:
    """The devices of a mesh, in that mesh."""
    if not isinstance(mesh, (jax.sharding.Mesh, jax.sharding.AbstractMesh)):
        raise ArgumentTypeError(f"mesh is {kind_of(mesh)}. Pass a jax.sharding.Mesh; for devices, from_devices.")
    axes = tuple((name, int(size)) for name, size in mesh.shape.items())
    count = math.prod(size for _, size in axes)
    if not isinstance(mesh, jax.sharding.Mesh):
        return Topology("cpu", count, axes)
    memory, usable = _memory([*mesh.devices.flat])
    return Topology(mesh.devices.flat[0].platform, count, axes, None, memory, usable)


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
