"""Effects inside of a ``jit``: taken out, so that they are checks of their own.

The ``jit`` then also returns what its effects read. That is as eager JAX compiles it: there, too, they read it from
memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jax.extend.core import Jaxpr, JaxprEqn, Literal, Primitive, Var

from shardinit.backend.private_jax import UNSPECIFIED, acts
from shardinit.lane.equations import name_of
from shardinit.lane.primitives import has_checks_inside, outer_effects, pure_equation


@dataclass(frozen=True, slots=True)
class Effect:
    """An equation to run for its effect; of what it reads, results of the ``jit`` by their number, and literals."""

    primitive: Primitive
    params: dict[str, Any]
    reads: tuple[int | Literal, ...]


def lift_effects(primitive: Primitive, params: dict[str, Any]) -> tuple[dict[str, Any], list[Effect]]:
    """Take the effects out of the parameters of a ``jit``; its new results come after its own."""
    if name_of(primitive) != "jit" or not acts(params["jaxpr"].jaxpr.effects):
        return params, []
    pure, effects = _lifted(params["jaxpr"].jaxpr)
    if not effects:
        return params, []
    numbers = {v: at for at, v in reversed([*enumerate(pure.outvars)]) if not isinstance(v, Literal)}
    taken = [
        Effect(e.primitive, e.params, tuple(v if isinstance(v, Literal) else numbers[v] for v in e.invars))
        for e in effects
    ]
    return _with_jaxpr(params, pure), taken


def _with_jaxpr(params: dict[str, Any], jaxpr: Jaxpr) -> dict[str, Any]:
    """Parameters of a ``jit`` with another jaxpr, which has more results."""
    closed = params["jaxpr"]
    more = len(jaxpr.outvars) - len(closed.jaxpr.outvars)
    return params | {
        "jaxpr": closed.replace(jaxpr=jaxpr) if closed.jaxpr is not closed else jaxpr,
        "out_shardings": (*params["out_shardings"], *(UNSPECIFIED,) * more),
        "out_layouts": (*params["out_layouts"], *(None,) * more),
    }


def _lifted(jaxpr: Jaxpr) -> tuple[Jaxpr, list[JaxprEqn]]:
    """Take the effects out of a jaxpr, which then also returns what they read."""
    used = {v for e in jaxpr.eqns for v in e.invars if not isinstance(v, Literal)}
    used |= {v for v in jaxpr.outvars if not isinstance(v, Literal)}
    kept: list[JaxprEqn] = []
    effects: list[JaxprEqn] = []
    for equation in jaxpr.eqns:
        if acts(equation.effects) and name_of(equation.primitive) == "jit":
            equation, inner = _lifted_jit(equation)
            effects += inner
        elif acts(equation.effects) and used.isdisjoint(equation.outvars):
            effects.append(equation)
            continue
        elif acts(equation.effects):
            effects += [equation] if has_checks_inside(equation.params) else []
            equation = pure_equation(equation)
        kept.append(equation)
    more = dict.fromkeys(v for e in effects for v in e.invars if not isinstance(v, Literal))
    outputs: Sequence[Any] = [*jaxpr.outvars, *more]
    remaining = outer_effects(kept)
    return jaxpr.replace(eqns=kept, outvars=outputs, effects=remaining), effects


def _lifted_jit(equation: JaxprEqn) -> tuple[JaxprEqn, list[JaxprEqn]]:
    pure, effects = _lifted(equation.params["jaxpr"].jaxpr)
    own = len(equation.outvars)
    outputs = [*equation.outvars, *(Var(v.aval) for v in pure.outvars[own:])]
    outside = dict(zip(pure.outvars[own:], outputs[own:], strict=True))
    params = _with_jaxpr(equation.params, pure)
    moved = [e.replace(invars=[v if isinstance(v, Literal) else outside[v] for v in e.invars]) for e in effects]
    return equation.replace(outvars=outputs, params=params, effects=pure.effects), moved
