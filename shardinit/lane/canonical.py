"""Equal programs recognized as equal: parameters of equations as hashable, comparable values.

Two traces of the same Python line give jaxprs that are different objects with the same content.
"""

import hashlib
import itertools
import weakref
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.extend.core import Literal as JaxprLiteral

# Parameters that say how to differentiate, or what to print in an error: not part of the forward program.
IGNORED = frozenset({"jvp_jaxpr_fun", "fwd_jaxpr_thunk", "fwd", "bwd", "out_trees", "debug_info", "jvp", "vjp"})

LARGEST_COMPARED = 1 << 20  # bytes of a NumPy array that is compared by content
MOST_NUMBERS = 10_000

_fresh = itertools.count()
_numbers: dict[Any, int] = {}
_jaxprs: "weakref.WeakKeyDictionary[Jaxpr, int]" = weakref.WeakKeyDictionary()
_kept: dict[int, Any] = {}  # objects known by identity stay alive, so that their id stays theirs


def number(key: Any) -> int:
    """Number a hashable value: equal values, equal numbers, until there are too many to remember."""
    if len(_numbers) > MOST_NUMBERS:  # what is forgotten gets a new number, and is compiled again
        _numbers.clear()
        _kept.clear()
    if key not in _numbers:
        _numbers[key] = next(_fresh)
    return _numbers[key]


def canonical(value: Any) -> Any:
    """Turn a parameter into a hashable value that compares by content."""
    if isinstance(value, ClosedJaxpr) and value.jaxpr is not value:  # since jax 0.11 they are one class
        return ("closed", canonical(value.jaxpr), tuple(canonical(c) for c in value.consts))
    if isinstance(value, Jaxpr):
        if value not in _jaxprs:
            _jaxprs[value] = number(_jaxpr_key(value))
        return ("jaxpr", _jaxprs[value])
    if isinstance(value, (tuple, list)):
        return (type(value).__name__, *map(canonical, value))
    if isinstance(value, dict):
        return canonical_params(value)
    if isinstance(value, np.ndarray) and value.nbytes <= LARGEST_COMPARED:
        return ("array", value.dtype.str, value.shape, hashlib.sha256(value.tobytes()).digest())
    if isinstance(value, (jax.Array, np.ndarray)):
        return _by_identity(value)
    if isinstance(value, (float, complex, np.generic)):  # by bits: 0.0 == -0.0, and nan is not equal to itself
        return ("number", type(value).__name__, np.asarray(value).tobytes())
    try:
        hash(value)
    except TypeError:
        return _by_identity(value)
    return (type(value), value)


def canonical_params(params: dict[str, Any]) -> Any:
    """Turn an equation's parameters into a hashable value."""
    return tuple((name, canonical(params[name])) for name in sorted(params) if name not in IGNORED)


def _by_identity(value: Any) -> tuple[str, int]:
    _kept[id(value)] = value
    return ("object", id(value))


def aval_key(aval: Any) -> Any:
    """Shape, dtype and weak type of an abstract value."""
    return (aval.shape, aval.dtype, getattr(aval, "weak_type", False)) if hasattr(aval, "shape") else str(aval)


def _jaxpr_key(jaxpr: Jaxpr) -> Any:
    names: dict[Any, int] = {}

    def name(atom) -> Any:
        if isinstance(atom, JaxprLiteral):
            return (canonical(atom.val), aval_key(atom.aval))
        return names.setdefault(atom, len(names))

    inputs = tuple((name(v), aval_key(v.aval)) for v in (*jaxpr.constvars, *jaxpr.invars))
    equations = tuple(
        (
            e.primitive,
            canonical_params(e.params),
            tuple(name(a) for a in e.invars),
            tuple((name(v), aval_key(v.aval)) for v in e.outvars),
        )
        for e in jaxpr.eqns
    )
    constants = tuple(map(canonical, getattr(jaxpr, "consts", ())))
    return (inputs, equations, tuple(name(a) for a in jaxpr.outvars), constants)
