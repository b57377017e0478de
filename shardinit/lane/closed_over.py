"""Large arrays that a ``jit`` inside init closes over: inputs of its equation, rather than numbers in its program.

XLA computes with what it knows when it compiles: it divides by a known array by multiplying, and evaluates what is
known as a whole. Eager JAX lets it know these arrays, so they are taken out only where that makes no difference.
"""

import math
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import Literal

from shardinit.backend.private_jax import UNSPECIFIED, bind
from shardinit.lane.equations import Constant, as_atom, evaluate_jaxpr, name_of
from shardinit.lane.primitives import MOVES

LARGE = 1 << 16  # bytes
# Beside moves, each gives the same bits whether or not an argument is known; "add" if it has no zeros, since XLA takes
# x + 0 for x, also where x is -0.
INDIFFERENT = frozenset({"add", "mul", "sub"})

_opened: "weakref.WeakKeyDictionary[Any, tuple[Any, list[Constant]] | None]" = weakref.WeakKeyDictionary()


def opened(params: dict[str, Any]) -> tuple[dict[str, Any], list[Constant]]:
    """Make the large arrays that a ``jit`` and those inside of it close over its last inputs."""
    jaxpr = params["jaxpr"].jaxpr
    if jaxpr not in _opened:
        _opened[jaxpr] = _open(params["jaxpr"])
    found = _opened[jaxpr]
    if found is None:
        return params, []
    more = {"in_shardings": UNSPECIFIED, "in_layouts": None, "donated_invars": False}
    added = {k: (*params[k], *[v] * len(found[1])) for k, v in more.items()}
    return params | added | {"jaxpr": found[0]}, found[1]


def bytes_inside(params: dict[str, Any]) -> int:
    """Bytes of the large arrays that stay part of the program, in those inside of it too."""
    jaxpr = params["jaxpr"].jaxpr
    inner = sum(bytes_inside(e.params) for e in jaxpr.eqns if name_of(e.primitive) == "jit")
    return inner + sum(size_of(v.aval) for v in jaxpr.constvars if _is_large(v))


def size_of(aval: Any) -> int:
    """Bytes of one lane's value."""
    return math.prod(aval.shape) * aval.dtype.itemsize


def _open(closed: Any) -> tuple[Any, list[Constant]] | None:
    variables = closed.jaxpr.constvars
    taken = [at for at, v in enumerate(variables) if _is_large(v) and not v.aval.weak_type]
    if not _is_indifferent(closed.jaxpr, {variables[at]: closed.consts[at] for at in taken}):
        taken = []
    constants = [_constant(closed.consts[at]) for at in taken]
    constants += [c for e in closed.jaxpr.eqns if name_of(e.primitive) == "jit" for c in opened(e.params)[1]]
    if not constants:
        return None

    def run(*arguments: Any) -> Any:
        inputs, given = arguments[: len(closed.in_avals)], iter(arguments[len(closed.in_avals) :])
        consts = [next(given) if at in taken else c for at, c in enumerate(closed.consts)]
        return _evaluate(closed.jaxpr, (*consts, *inputs), given)

    avals = (*closed.in_avals, *(c.aval for c in constants))
    return jax.make_jaxpr(run)(
        *(jax.ShapeDtypeStruct(a.shape, a.dtype, weak_type=a.weak_type) for a in avals)
    ), constants


def _constant(array: Any) -> Any:
    return as_atom(array if isinstance(array, jax.Array) else np.asarray(array))


def _is_large(variable: Any) -> bool:
    return isinstance(variable.aval.dtype, np.dtype) and size_of(variable.aval) >= LARGE


def _is_indifferent(jaxpr: Any, known: dict[Any, Any]) -> bool:
    """Whether equations that read known arrays give the same bits if these are not known; adds what moves them.

    ``known`` has the array behind each variable.
    """
    for equation in jaxpr.eqns:
        name = name_of(equation.primitive)
        arguments = {a for a in equation.invars if not isinstance(a, Literal)}
        read = [known[a] for a in arguments & known.keys()]
        if not read:
            continue
        if name == "jit":
            if not _is_indifferent_inside(equation, known):
                return False
        elif name in MOVES:
            if arguments <= known.keys():
                known |= dict.fromkeys(equation.outvars, read[0] if len(read) == 1 else None)
        elif name not in INDIFFERENT or arguments <= known.keys() or (name == "add" and any(map(_has_zeros, read))):
            return False
    return True


def _is_indifferent_inside(equation: Any, known: dict[Any, Any]) -> bool:
    inner = equation.params["jaxpr"].jaxpr
    given = [(v, a) for v, a in zip(inner.invars, equation.invars, strict=True) if not isinstance(a, Literal)]
    inside = {v: known[a] for v, a in given if a in known}
    indifferent = _is_indifferent(inner, inside)
    made = [(o, v) for o, v in zip(equation.outvars, inner.outvars, strict=True) if not isinstance(v, Literal)]
    known |= {o: inside[v] for o, v in made if v in inside}
    return indifferent


def _has_zeros(array: Any) -> bool:
    """Whether there is a zero in an array, or may be: None stands for one that was put together from several.

    An array of JAX is read shard by shard, never gathered. One of several processes is not read: eager JAX closes over
    none, so there are no bits to keep.
    """
    if array is None or not isinstance(array, jax.Array):
        parts = [array]
    else:
        parts = [shard.data for shard in array.addressable_shards] if array.is_fully_addressable else []
    return any(part is None or np.count_nonzero(part) < part.size for part in parts)


def _evaluate(jaxpr: Any, arguments: Sequence[Any], given: Iterator[Any]) -> list[Any]:
    def step(equation: Any, values: Any) -> Any:
        params = equation.params
        if name_of(equation.primitive) == "jit":
            params, constants = opened(params)
            values += [next(given) for _ in constants]
        return bind(equation.primitive, params, values)

    return evaluate_jaxpr(jaxpr, arguments, step)
