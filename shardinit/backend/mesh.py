"""Meshes: made from a plan, or checked against it."""

import math
from collections import Counter

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from shardinit.errors import ArgumentTypeError, PlanError
from shardinit.spec.plan import InitPlan
from shardinit.wording import kind_of


def make_mesh(plan: InitPlan) -> Mesh | None:
    """Build the mesh of a plan from this machine's devices; None if it needs none."""
    if not plan.mesh_axes:
        return None
    names, shape = zip(*plan.mesh_axes, strict=True)
    count = math.prod(shape)
    devices = jax.devices()
    if len(devices) < count:
        raise PlanError(
            f"the plan is for {count} devices ({dict(plan.mesh_axes)}), but devices={len(devices)} here. "
            f"Plan for Topology.local(), or call shardinit.emulate_cpu({count}) first."
        )
    # The last axis of the mesh splits single lanes: its devices are in one slice, and in one process if possible.
    devices = sorted(devices, key=lambda d: (getattr(d, "slice_index", 0) or 0, d.process_index))
    chosen = _evenly(devices, plan) if plan.idle_devices else devices[:count]
    arranged = _in_torus(chosen, shape) if len(chosen) == len(devices) else np.array(chosen).reshape(shape)
    return Mesh(arranged, names, axis_types=(AxisType.Auto,) * len(shape))


def _in_torus(devices: list[jax.Device], shape: tuple[int, ...]) -> np.ndarray:
    """Arrange TPUs of whole slices by their places in the torus; other devices stay in their order."""
    sizes = Counter(getattr(d, "slice_index", 0) for d in devices)
    slices = len(sizes)
    if devices[0].platform != "tpu" or shape[0] % slices or len({*sizes.values()}) > 1:
        return np.array(devices).reshape(shape)
    if slices == 1:
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    within, across = (shape[0] // slices, *shape[1:]), (slices, *(1 for _ in shape[1:]))
    return mesh_utils.create_hybrid_device_mesh(within, across, devices, allow_split_physical_axes=True)


def _evenly(devices: list[jax.Device], plan: InitPlan) -> list[jax.Device]:
    """Take as many groups of `model` devices of each node as of the others, or one more: none is left without."""
    model = dict(plan.mesh_axes).get("model", 1)
    groups = plan.mesh_devices // model
    fast = plan.topology.fast_devices
    nodes = plan.topology.devices // fast
    shares = [groups // nodes + (node < groups % nodes) for node in range(nodes)]
    return [d for node, share in enumerate(shares) for d in devices[node * fast : node * fast + share * model]]


def check_mesh(plan: InitPlan, mesh: Mesh) -> None:
    """Refuse a mesh that is not the plan's."""
    if not isinstance(mesh, Mesh):
        raise ArgumentTypeError(
            f"mesh is {kind_of(mesh)}. Pass a jax.sharding.Mesh, or None for this machine's devices."
        )
    if tuple(mesh.shape.items()) != plan.mesh_axes:
        raise PlanError(
            f"the plan is for the mesh axes {dict(plan.mesh_axes)}, the mesh has {dict(mesh.shape)}. "
            "Plan with Topology.from_mesh(mesh)."
        )


def with_auto_axes(mesh: Mesh) -> Mesh:
    """Return the same mesh with axes that shard_map and GSPMD can both use."""
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * mesh.devices.ndim)
