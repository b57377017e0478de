"""The functions that users call instead of brainstate's."""

import functools
import logging
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from brainstate import State
from jax.sharding import AxisType, Mesh

from shardinit.api.compile import compile
from shardinit.api.execute import InitResult, execute
from shardinit.api.plan import plan
from shardinit.backend.ambient import ambient_mesh
from shardinit.backend.private_jax import eval_trace, trace_ctx
from shardinit.errors import ArgumentError, ArgumentTypeError, PlanError
from shardinit.executor.inline import run_inline
from shardinit.frontends.brainstate.discovery import discover
from shardinit.spec.options import Numerics, check_axis_size
from shardinit.spec.topology import Topology
from shardinit.wording import kind_of

StatesByAxis = dict[int | None, list[State]]


def vmap2_new_states(
    module: Any,
    init_kwargs: Mapping[str, Any],
    state_tag: str | None = None,
    axis_size: int | None = None,
    state_out_axes: Any = None,
    spmd_axis_name: Any = None,
    *,
    numerics: Numerics = "exact",
) -> StatesByAxis:
    """Initialize and vectorize the states that ``module.init_all_states(**init_kwargs)`` creates.

    A drop-in replacement for ``brainstate.transform.vmap2_new_states``, with its values bit for bit. It
    runs the init code once, abstractly, and compiles each distinct piece of it once.

    A state that existed before is not batched. What init writes into it is kept if it is the same on every lane,
    and the state is not in the returned dictionary; anything else is an error, as in brainstate 0.6.

    Parameters
    ----------
    module
        Module whose ``init_all_states`` creates the states.
    init_kwargs
        Keyword arguments of ``init_all_states``.
    state_tag
        Tag of the new states, on them before the filters look.
    axis_size
        Number of lanes. None takes it from the ambient mesh: the axis that ``spmd_axis_name`` names, or ``lanes``.
    state_out_axes
        ``{axis: filter}``, or one filter for axis 0. ``NonBatchState`` goes to axis None.
    spmd_axis_name
        Axis of the ambient mesh over which to shard the lanes.
    numerics
        ``exact``, or ``fused`` to let XLA fuse over operation boundaries.

    Returns
    -------
    dict[int | None, list[State]]
        The states by axis, None first; these are the very objects that the module holds.

    Raises
    ------
    ValueError
        If a state matches the filters of two axes, an axis does not exist in a leaf, a state on axis
        None differs by lane, init writes what differs by lane into a state that existed before, or ``axis_size``
        is None and cannot be inferred.
    TypeError
        If ``axis_size`` is not an integer.

    Examples
    --------
    >>> import brainstate, jax.numpy as jnp, shardinit
    >>> class Counter(brainstate.nn.Module):
    ...     def init_state(self):
    ...         self.count = brainstate.ShortTermState(jnp.array(0))
    >>> module = Counter()
    >>> _ = shardinit.vmap2_new_states(module, init_kwargs={}, axis_size=5)
    >>> module.count.value.shape
    (5,)
    """
    ambient = ambient_mesh()
    if axis_size is None:
        axis_size, spmd_axis_name = _inferred_axis_size(ambient, spmd_axis_name)
    axis_size = check_axis_size(axis_size)
    if not _is_eager():
        return _inline(module, init_kwargs, state_tag, axis_size, state_out_axes, spmd_axis_name)
    mesh = None if spmd_axis_name is None else ambient
    if mesh is not None:
        _check_spmd_axis(mesh, spmd_axis_name, axis_size)
    program = discover(module, init_kwargs, state_tag=state_tag, state_out_axes=state_out_axes, rewritten="error")
    topology = Topology.default_device() if mesh is None else Topology.from_mesh(mesh)
    planned = plan(program, topology, axis_size=axis_size, numerics=numerics, lanes_axis=spmd_axis_name)
    return _states_of(execute(compile(program, planned, mesh)))


def pmap2_new_states(
    module: Any,
    init_kwargs: Mapping[str, Any],
    state_tag: str | None = None,
    axis_size: int | None = None,
    state_out_axes: Any = None,
    axis_name: Any = None,
    *,
    numerics: Numerics = "exact",
) -> StatesByAxis:
    """Initialize the states of a module over the local devices, one lane per device or several.

    A drop-in replacement for ``brainstate.transform.pmap2_new_states``. The values are those of
    ``vmap2_new_states``; the arrays are on a mesh whose one axis is called ``axis_name``, or ``lanes``.

    Parameters
    ----------
    module, init_kwargs, state_tag, state_out_axes, numerics
        As for ``vmap2_new_states``.
    axis_size
        Number of lanes: up to the number of local devices (fewer use the first ones), or a multiple of
        it. None means one lane per local device.
    axis_name
        Name of the mapped axis, for collectives inside init such as ``jax.lax.psum(x, axis_name)``.

    Returns
    -------
    dict[int | None, list[State]]
        The states by axis, None first.

    Raises
    ------
    ValueError
        As for ``vmap2_new_states``, and if ``axis_size`` is not a multiple of the number of local devices.

    Examples
    --------
    >>> import brainstate, jax, jax.numpy as jnp, shardinit
    >>> class Counter(brainstate.nn.Module):
    ...     def init_state(self):
    ...         self.count = brainstate.ShortTermState(jnp.zeros(()))
    >>> module = Counter()
    >>> _ = shardinit.pmap2_new_states(module, init_kwargs={})
    >>> module.count.value.shape == (jax.local_device_count(),)
    True
    """
    if axis_name is not None and not isinstance(axis_name, str):
        raise ArgumentTypeError(
            f"axis_name={axis_name!r} is {kind_of(axis_name)}. Pass a str: it names the axis of a mesh."
        )
    devices = jax.local_devices()
    axis_size = len(devices) if axis_size is None else check_axis_size(axis_size)
    if axis_size < len(devices):
        devices = devices[:axis_size]
    elif axis_size % len(devices):
        below = axis_size // len(devices) * len(devices)
        nearest = [below + len(devices)] if below == len(devices) else [below, below + len(devices)]
        raise PlanError(
            f"cannot spread the lanes over the devices: axis_size={axis_size}, local devices={len(devices)}. "
            f"Use {' or '.join(f'axis_size={n}' for n in nearest)}, or any number up to {len(devices)}."
        )
    if not _is_eager():
        return _inline(module, init_kwargs, state_tag, axis_size, state_out_axes, None, axis_name)
    name = "lanes" if axis_name is None else axis_name
    mesh = Mesh(np.array(devices), (name,), axis_types=(AxisType.Auto,))
    program = discover(
        module,
        init_kwargs,
        state_tag=state_tag,
        state_out_axes=state_out_axes,
        axis_name=axis_name,
        axis_size=axis_size,
        rewritten="error",
    )
    planned = plan(
        program, Topology.from_mesh(mesh), axis_size=axis_size, strategy="pmap", numerics=numerics, lanes_axis=name
    )
    return _states_of(execute(compile(program, planned, mesh)))


def _inline(
    module: Any,
    init_kwargs: Mapping[str, Any],
    state_tag: str | None,
    axis_size: int,
    state_out_axes: Any,
    spmd_axis_name: Any,
    axis_name: Any = None,
) -> StatesByAxis:
    traced = discover(
        module,
        init_kwargs,
        state_tag=state_tag,
        state_out_axes=state_out_axes,
        axis_name=axis_name,
        axis_size=axis_size,
        rewritten="error",
    )
    run_inline(traced.program, traced.sink, axis_size, spmd_axis_name)
    for note in traced.notes:
        _log_once(note)
    return traced.sink.states_by_axis()


def _states_of(result: InitResult) -> StatesByAxis:
    """Give the caller the states; the notes, for which there is no receipt, go to the log."""
    for note in result.receipt.notes:
        _log_once(note)
    return result.states


@functools.lru_cache(maxsize=1024)
def _log_once(note: str) -> None:
    logging.getLogger("shardinit").warning(note)


def _is_eager() -> bool:
    return trace_ctx.trace is eval_trace


def _inferred_axis_size(ambient: Mesh | None, spmd_axis_name: Any) -> tuple[int, Any]:
    """Size and name of the ambient mesh axis that the lanes go over."""
    wanted = "lanes" if spmd_axis_name is None else spmd_axis_name
    if ambient is not None and wanted in ambient.axis_names:
        return ambient.shape[wanted], wanted
    has = f"has the axes {ambient.axis_names}" if ambient is not None else "is not set"
    raise ArgumentError(
        f"axis_size=None cannot be inferred: the ambient mesh {has}, and the lanes would be its axis {wanted!r}. "
        "Pass axis_size, such as axis_size=8, or set a mesh with that axis by jax.set_mesh."
    )


def _check_spmd_axis(mesh: Mesh, name: Any, axis_size: int) -> None:
    if name not in mesh.axis_names:
        raise ArgumentError(
            f"spmd_axis_name={name!r} is not an axis of the ambient mesh, which has {mesh.axis_names}. "
            f"Name one of them, such as spmd_axis_name={mesh.axis_names[0]!r}."
        )
    shards = mesh.shape[name]
    if axis_size % shards:
        below = axis_size // shards * shards
        sizes = " or ".join(f"axis_size={s}" for s in (below, below + shards) if s)
        raise PlanError(
            f"cannot shard the lanes over the mesh axis {name!r}: axis_size={axis_size}, axis {name!r}={shards}. "
            f"Use {sizes}."
        )
