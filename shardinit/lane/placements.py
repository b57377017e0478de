"""Placements that init asks for: values stay as they are, and the plan alone says where they go."""

from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from shardinit.lane.equations import name_of, primitive_names
from shardinit.private_jax import UNSPECIFIED

CONSTRAINTS = frozenset({"sharding_constraint", "reshard", "layout_constraint"})


def asks_for_placement(primitive: Any, params: dict[str, Any]) -> bool:
    """Whether an equation, or one in a jaxpr that it carries, says where its values go."""
    if name_of(primitive) == "device_put":
        return any(isinstance(d, (jax.sharding.Sharding, jax.Device)) for d in params["devices"])
    shardings = (*params.get("in_shardings", ()), *params.get("out_shardings", ()))
    asked = any(isinstance(s, jax.sharding.Sharding) for s in shardings)
    return asked or not CONSTRAINTS.isdisjoint(primitive_names(primitive, params))


def unplaced(params: dict[str, Any]) -> dict[str, Any]:
    """Take the placements out of an equation's parameters, and out of the jaxprs among them."""
    without = {k: _unplaced(v) for k, v in params.items()}
    for name in ("in_shardings", "out_shardings"):
        if name in params:
            without[name] = (UNSPECIFIED,) * len(params[name])
    return without


def _unplaced(value: Any) -> Any:
    if isinstance(value, (tuple, list)) and any(isinstance(v, (ClosedJaxpr, Jaxpr)) for v in value):
        return type(value)(map(_unplaced, value))
    if isinstance(value, ClosedJaxpr) and value.jaxpr is not value:  # since jax 0.11 they are one class
        return value.replace(jaxpr=_unplaced(value.jaxpr))
    if not isinstance(value, Jaxpr):
        return value
    same: dict[Any, Any] = {}  # what a constraint made -> what it was made of

    def read(atom):
        return atom if isinstance(atom, Literal) else same.get(atom, atom)

    equations = []
    for equation in value.eqns:
        inputs = [read(a) for a in equation.invars]
        if name_of(equation.primitive) in CONSTRAINTS:
            same[equation.outvars[0]] = inputs[0]
        else:
            equations.append(equation.replace(invars=inputs, params=unplaced(equation.params)))
    return value.replace(eqns=equations, outvars=[read(a) for a in value.outvars])
