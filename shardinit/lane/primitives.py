"""What the compiler needs to know of single primitives, by name."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn
from jax.extend.core import Literal as JaxprLiteral

from shardinit.backend.private_jax import RefEffect, acts, mixes_lanes
from shardinit.lane.equations import (
    UNKNOWN,
    Atom,
    Equation,
    Variable,
    equations_in,
    jaxprs_of,
    name_of,
    primitive_names,
)
from shardinit.spec.program import Callback

# Over the lanes, by the name of the mapped axis: with the same result on every lane, and not.
UNIFORM_COLLECTIVES = frozenset({"psum", "psum_invariant", "pmax", "pmin", "all_gather", "all_gather_invariant"})
LANE_COLLECTIVES = frozenset({"axis_index", "ppermute", "all_to_all", "reduce_scatter"})
COLLECTIVES = UNIFORM_COLLECTIVES | LANE_COLLECTIVES

# These move data and round nothing.
MOVES = frozenset(
    {"broadcast_in_dim", "concatenate", "copy", "device_put", "dynamic_slice", "dynamic_update_slice", "gather", "pad"}
    | {"reshape", "rev", "select_n", "slice", "squeeze", "stop_gradient", "transpose"}
)

# XLA sees through these: they are compiled with what is around them.
CALLS = frozenset(
    {"jit", "closed_call", "call", "custom_jvp_call", "custom_vjp_call", "remat2", "remat_opt", "custom_lin"}
)

# Eager JAX evaluates the jaxprs of these equation by equation. The last two have rules of their own for lanes.
OPENED_BY_LANE = frozenset(
    {"remat2", "remat_opt", "closed_call", "call", "eval_jaxpr", "composite", "linear_call", "program_order"}
)
OPENED = OPENED_BY_LANE | {"custom_vmap_call", "custom_linear_solve"}
OPENED_WITHOUT_JIT = frozenset({"random_gamma"})  # under ``jax.disable_jit()``: it is made of others, by loops

# GSPMD gathers the whole array for these, or nobody knows: they run whole lanes at a time, under shard_map.
UNSPLITTABLE = frozenset(
    {
        UNKNOWN,
        "qr",
        "geqrf",
        "geqp3",
        "householder_product",
        "cholesky",
        "eigh",
        "eig",
        "svd",
        "lu",
        "triangular_solve",
    }
    | {"fft", "sort", "scan", "while", "cumsum", "cumprod", "cummax", "cummin", "schur", "hessenberg", "tridiagonal"}
    | {"cholesky_update", "ormqr", "lu_pivots_to_permutation", "tridiagonal_solve", "random_gamma"}
)

# Code of the user's, on the host. It can fail, and ``io_callback`` does more than return a value.
EFFECTFUL_CALLBACKS = frozenset({"io_callback"})
CALLBACKS = EFFECTFUL_CALLBACKS | {"pure_callback"}

# These add up many numbers, in an order that a backend chooses by the size of the whole batch: eager
# brainstate itself gives a lane other last bits for another axis_size there. So may what is not known.
ACCUMULATING = frozenset(
    {UNKNOWN, "reduce_sum", "reduce_prod", "dot_general", "conv_general_dilated", "cumsum", "cumprod", "cumlogsumexp"}
    | {"reduce", "reduce_window", "reduce_window_sum", "select_and_gather_add", "select_and_scatter_add"}
    | {"ragged_dot_general", "symmetric_product", "scatter-add", "scatter-sub", "scatter-mul"}
)

# What these give one lane depends on the other lanes: user code, or bits drawn for the whole batch from its first key.
LANES_TOGETHER = frozenset({"custom_vmap_call", "rng_bit_generator", "rng_uniform"})
# What ``brainstate`` and ``equinox`` ask whether some lane fails with: one value for all that are mapped.
WITHOUT_LANES = frozenset({"unvmap_all", "unvmap_any", "unvmap_max", "no_vmap"})
LANE_BY_LANE_KEYS = "key<fry>"


def pure_params(equation: Equation) -> dict[str, Any]:
    """Parameters of an equation, without the checks in the jaxprs that it carries (``checks.py`` runs those)."""
    return {k: _pure(v) for k, v in equation.params.items()} if equation.effects else equation.params


def _pure(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return type(value)(map(_pure, value))
    if isinstance(value, ClosedJaxpr) and value.jaxpr is not value:  # since jax 0.11 they are one class
        return value.replace(jaxpr=_pure(value.jaxpr))
    if not isinstance(value, Jaxpr) or not acts(value.effects):
        return value
    read = [a for e in value.eqns for a in e.invars] + list(value.outvars)
    used = {a for a in read if not isinstance(a, JaxprLiteral)}
    kept = [e for e in value.eqns if not acts(e.effects) or any(v in used for v in e.outvars)]
    pure = [pure_equation(e) if acts(e.effects) else e for e in kept]
    return value.replace(eqns=pure, effects=outer_effects(pure))


def outer_effects(equations: Iterable[JaxprEqn]) -> frozenset[Any]:
    """Effects of a jaxpr with these equations; what they do to mutable arrays of its own is none of them."""
    return frozenset(e for equation in equations for e in equation.effects if not isinstance(e, RefEffect))


def pure_equation(equation: JaxprEqn) -> JaxprEqn:
    """Take the checks out of the jaxprs that an equation of a jaxpr carries."""
    pure = equation.replace(params={k: _pure(v) for k, v in equation.params.items()})
    return pure.replace(effects=_effects(pure))


def has_checks_inside(params: dict[str, Any]) -> bool:
    """Whether the jaxprs of an equation do something for its effect alone, which ``pure_params`` leaves out."""
    return _count_effects(params) > _count_effects({k: _pure(v) for k, v in params.items()})


def _count_effects(params: dict[str, Any]) -> int:
    equations = [e for j in jaxprs_of(params) for e in j.eqns if acts(e.effects)]
    return sum(_count_effects(e.params) if jaxprs_of(e.params) else 1 for e in equations)


def _effects(equation: JaxprEqn) -> Any:
    """Effects of an equation that has none but those of its jaxprs."""
    inner = jaxprs_of(equation.params)
    return frozenset().union(*(j.effects for j in inner)) if inner else equation.effects


def calls_back(*equations: Equation) -> Callback:
    """Whether equations call the host for a value, however deep, and whether that is more than a function."""
    names = frozenset[str]().union(*(primitive_names(e.primitive, pure_params(e)) for e in equations))
    if not EFFECTFUL_CALLBACKS.isdisjoint(names):
        return "effectful"
    return "no" if CALLBACKS.isdisjoint(names) else "pure"


def read_by(equation: Equation) -> Iterator[Variable]:
    """Yield what an equation reads; instead of what has lost its lanes, what that was made of.

    Between two pieces it would get lanes again, and ``cond`` by a predicate that has some does all that it can do.
    """
    for atom in equation.inputs:
        if isinstance(atom, Variable):
            yield from read_by(atom.equation) if atom.equation and atom.lost_lanes else (atom,)


def loses_lanes(primitive: Any, inputs: Sequence[Atom]) -> bool:
    """Whether ``jax.vmap`` gives one value for all lanes, though the lanes go into it."""
    lanes = [a for a in inputs if a.on_axis]
    return bool(lanes) and (primitive.name in WITHOUT_LANES or all(a.lost_lanes for a in lanes))


def contains(equation: Equation, names: frozenset[str]) -> bool:
    """Whether an equation, or one in a jaxpr that it carries, is one of these primitives."""
    return not names.isdisjoint(primitive_names(equation.primitive, equation.params))


def accumulates(equation: Equation) -> bool:
    """Whether an equation adds up floating-point numbers that differ by lane, for all that is known."""
    made = [v for v in equation.outputs if v.on_axis]
    return _adds_up(equation.primitive, equation.params) and any(
        jax.numpy.issubdtype(v.aval.dtype, jax.numpy.inexact) or contains(equation, frozenset({UNKNOWN})) for v in made
    )


def unknown_primitives(equation: Equation) -> set[str]:
    """Names of the primitives in an equation that no table has."""
    found = (equation, *equations_in(equation.params))
    return {e.primitive.name for e in found if name_of(e.primitive) == UNKNOWN}


def takes_lanes_together(primitive: Any, params: dict[str, Any], avals: Iterable[Any]) -> bool:
    """Whether what an equation gives one lane depends on which other lanes are mapped with it.

    ``avals`` are those of its inputs and outputs.
    """
    inside = [*equations_in(params)]
    primitives = {primitive, *(e.primitive for e in inside)}
    if not LANES_TOGETHER.isdisjoint(map(name_of, primitives)) or any(map(mixes_lanes, primitives)):
        return True
    return has_other_keys(avals) or any(has_other_keys(v.aval for v in (*e.invars, *e.outvars)) for e in inside)


def has_other_keys(avals: Iterable[Any]) -> bool:
    """Whether there are PRNG keys whose bits may depend on how many of them are drawn from at once."""
    extended = {d for aval in avals if not isinstance(d := getattr(aval, "dtype", None), (np.dtype, type(None)))}
    return any(jax.dtypes.issubdtype(d, jax.dtypes.prng_key) and str(d) != LANE_BY_LANE_KEYS for d in extended)


def _adds_up(primitive: Any, params: Any) -> bool:
    if ACCUMULATING.isdisjoint(primitive_names(primitive, params)):
        return False
    return name_of(primitive) in ACCUMULATING or any(
        _adds_up(e.primitive, e.params) for j in _reached(params) for e in j.eqns
    )


def _reached(params: dict[str, Any]) -> list[Any]:
    """Jaxprs that can run: a branch for Pallas kernels alone cannot (``jnp.diagonal`` has a sum there)."""
    platforms = params.get("branches_platforms")
    if platforms is None:
        return jaxprs_of(params)
    branches = zip(params["branches"], platforms, strict=True)
    return jaxprs_of({"branches": [b for b, names in branches if names is None or set(names) - {"mosaic"}]})
