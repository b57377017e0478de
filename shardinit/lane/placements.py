"""Placements that init asks for: values stay as they are, and the plan alone says where they go.

Init runs under the mesh that is set around it, so that it can name that mesh's axes; what is traced of it knows none.
"""

import contextlib
import weakref
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from jax.sharding import AbstractMesh, Mesh, NamedSharding

from shardinit.backend.private_jax import UNSPECIFIED, bind
from shardinit.lane.equations import evaluate_jaxpr, jaxprs_of, name_of

CONSTRAINTS = frozenset({"sharding_constraint", "reshard", "layout_constraint"})
OF_TYPES = ("sharding", "out_sharding")  # parameters that give a result its type on a mesh with explicit axes
NO_MESH, NO_DEVICES = AbstractMesh((), ()), Mesh(np.empty((), object), ())


def asks_for_placement(primitive: Any, params: dict[str, Any]) -> bool:
    """Whether an equation, or one in a jaxpr that it carries, says where its values go."""
    if name_of(primitive) == "device_put":
        return any(isinstance(d, (jax.sharding.Sharding, jax.Device, jax.memory.Space)) for d in params["devices"])
    shardings = (*params.get("in_shardings", ()), *params.get("out_shardings", ()))
    return (
        name_of(primitive) in CONSTRAINTS
        or any(isinstance(s, jax.sharding.Sharding) for s in shardings)
        or any(_splits(params.get(p)) for p in OF_TYPES)
        or any(map(_asks_inside, jaxprs_of(params)))
    )


def _splits(sharding: Any) -> bool:
    return isinstance(sharding, NamedSharding) and any(axis is not None for axis in sharding.spec)


_asks: "weakref.WeakKeyDictionary[Any, bool]" = weakref.WeakKeyDictionary()


def _asks_inside(jaxpr: Any) -> bool:
    if jaxpr not in _asks:
        _asks[jaxpr] = any(asks_for_placement(e.primitive, e.params) for e in jaxpr.eqns)
    return _asks[jaxpr]


def wishes(primitive: Any, params: dict[str, Any], outputs: int) -> list[tuple[str | None, ...]]:
    """Say where an equation that asks for a placement wants each output: mesh axis or None per axis; empty if open."""
    if name_of(primitive) == "device_put":
        return [_axes(place) for place in params["devices"]]
    said = [params[p] for p in (*OF_TYPES, "dst_sharding") if isinstance(params.get(p), NamedSharding)]
    if said:
        return [_axes(said[0])] * outputs
    if "out_shardings" not in params:
        return [()] * outputs
    jaxpr = params["jaxpr"].jaxpr
    makers = {v: (e, at) for e in jaxpr.eqns for at, v in enumerate(e.outvars)}
    found = []
    for sharding, variable in zip(params["out_shardings"], jaxpr.outvars, strict=True):
        axes = _axes(sharding) or _axes(getattr(variable.aval, "sharding", None))
        if not axes and not isinstance(variable, Literal) and variable in makers:
            equation, at = makers[variable]
            axes = wishes(equation.primitive, equation.params, len(equation.outvars))[at]
        found.append(axes)
    return found


def _axes(sharding: Any) -> tuple[str | None, ...]:
    """Mesh axis or None per axis; empty if none is named, one array axis is split by several, or it is host memory."""
    if not isinstance(sharding, NamedSharding) or sharding.memory_kind == "pinned_host":
        return ()
    axes = [axis[0] if isinstance(axis, tuple) and len(axis) == 1 else axis for axis in sharding.spec]
    if any(isinstance(axis, tuple) for axis in axes) or not any(isinstance(axis, str) for axis in axes):
        return ()
    return tuple(axis if isinstance(axis, str) else None for axis in axes)


def is_under_mesh() -> bool:
    """Whether what JAX makes now may have a mesh in its types or parameters."""
    return not jax.sharding.get_abstract_mesh().empty


def no_abstract_mesh() -> contextlib.AbstractContextManager:
    """Inside, what JAX makes has no mesh in its types."""
    return jax.sharding.use_abstract_mesh(NO_MESH) if is_under_mesh() else contextlib.nullcontext()


def unplaced(params: dict[str, Any]) -> dict[str, Any]:
    """Take placements and meshes out of an equation's parameters, and out of the jaxprs among them."""
    without = {k: _unplaced(v) for k, v in params.items()}
    without |= {k: (UNSPECIFIED,) * len(params[k]) for k in ("in_shardings", "out_shardings") if k in params}
    without |= {k: None for k in OF_TYPES if k in params}
    return without | ({"ctx_mesh": NO_DEVICES} if "ctx_mesh" in params else {})


def _unplaced(value: Any) -> Any:
    if isinstance(value, (tuple, list)) and any(isinstance(v, (ClosedJaxpr, Jaxpr)) for v in value):
        return type(value)(map(_unplaced, value))
    if isinstance(value, ClosedJaxpr):  # since jax 0.11 they are one class
        return _traced_anew(value)
    return _traced_anew(ClosedJaxpr(value, ())).jaxpr if isinstance(value, Jaxpr) else value


_anew: "weakref.WeakKeyDictionary[Any, Any]" = weakref.WeakKeyDictionary()


def _traced_anew(closed: Any) -> Any:
    """Trace a jaxpr again without its placements: so its types have no mesh either."""
    if closed.jaxpr not in _anew:
        arguments = [jax.ShapeDtypeStruct(a.shape, a.dtype, weak_type=a.weak_type) for a in closed.in_avals]
        with no_abstract_mesh():
            _anew[closed.jaxpr] = jax.make_jaxpr(lambda *a: evaluate_jaxpr(closed.jaxpr, (*closed.consts, *a), _step))(
                *arguments
            )
    return _anew[closed.jaxpr]


def _step(equation: Any, values: list[Any]) -> list[Any]:
    only_places = name_of(equation.primitive) in CONSTRAINTS | {"device_put"}
    if only_places and asks_for_placement(equation.primitive, equation.params):
        return values
    return bind(equation.primitive, unplaced(equation.params), values)
