"""Meshes: made from a plan, or checked against it."""

import math

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
    # The last axis of the mesh splits single lanes: its devices are in one slice, and in one process where they can be.
    devices = sorted(devices, key=lambda d: (getattr(d, "slice_index", 0) or 0, d.process_index))
    chosen = _evenly(devices, plan) if plan.idle_devices else devices[:count]
    return Mesh(_arranged(chosen, shape), names, axis_types=(AxisType.Auto,) * len(shape))


def _arranged(devices: list[jax.Device], shape: tuple[int, ...]) -> np.ndarray:
    """Arrange devices, sorted by slice, in a mesh: on TPU by their place in the torus, elsewhere in their order."""
    if devices[0].platform != "tpu":
        return np.array(devices).reshape(shape)
    slices = len({getattr(d, "slice_index", 0) for d in devices})
    within, across = (shape[0] // slices, *shape[1:]), (slices, *(1 for _ in shape[1:]))
    try:
        if slices == 1:
            return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
        if shape[0] % slices == 0:
            return mesh_utils.create_hybrid_device_mesh(within, across, devices, allow_split_physical_axes=True)
    except (AssertionError, NotImplementedError, ValueError):  # devices that are no block of the torus
        pass
    return np.array(devices).reshape(shape)


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
