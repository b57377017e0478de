"""What JAX has set around us: the ambient mesh, by ``jax.set_mesh`` or ``with mesh:``, and the default device."""

import contextlib

import jax
import numpy as np
from jax.sharding import Mesh

from shardinit.backend.private_jax import eval_trace, get_concrete_mesh, thread_resources, trace_ctx


def ambient_mesh() -> Mesh | None:
    """Return the ambient mesh, set in either of JAX's two ways; None if there is none."""
    for mesh in (get_concrete_mesh(), thread_resources.env.physical_mesh):
        if isinstance(mesh, Mesh) and not mesh.empty:
            return mesh
    return None


def no_ambient_mesh() -> contextlib.AbstractContextManager:
    """Inside, there is none: a lane knows no mesh, and our own meshes are named by shardings alone."""
    if ambient_mesh() is None:
        return contextlib.nullcontext()
    return jax.set_mesh(Mesh(np.empty((), object), ()))


def without_mesh() -> contextlib.AbstractContextManager:
    """Be without the ambient mesh, unless something is traced around: that has its own."""
    return no_ambient_mesh() if trace_ctx.trace is eval_trace else contextlib.nullcontext()


def default_device() -> jax.Device:
    """Return the device where JAX puts what names no other: ``jax_default_device``, or the backend's first."""
    home = jax.config.jax_default_device  # type: ignore[attr-defined]  # a device, the name of a platform, or None
    return home if isinstance(home, jax.Device) else jax.local_devices(backend=home)[0]
