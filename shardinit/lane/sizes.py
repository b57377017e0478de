"""Sizes that no array can have: JAX traces a draw of size -3 without a word, and only its compiler refuses it."""

import weakref
from collections.abc import Iterable
from typing import Any

from shardinit.errors import ArgumentError
from shardinit.lane.equations import jaxprs_of
from shardinit.lane.frames import user_line
from shardinit.spec.states import MOST_ELEMENTS

_inside: "weakref.WeakKeyDictionary[Any, Any]" = weakref.WeakKeyDictionary()


def check_sizes(avals: Iterable[Any], params: dict[str, Any]) -> None:
    """Refuse an equation that makes an array of a size that cannot be, itself or in a jaxpr that it carries."""
    impossible = _impossible(avals, params)
    if impossible is not None:
        raise ArgumentError(
            f"init makes an array {impossible.str_short()} at {user_line()}: each size must be between 0 and "
            "2**63 - 1. Change what the size comes from, such as an argument of init_all_states."
        )


def _impossible(avals: Iterable[Any], params: dict[str, Any]) -> Any:
    found = (a for a in avals if any(not 0 <= size <= MOST_ELEMENTS for size in getattr(a, "shape", ())))
    return next(found, None) or next(filter(None, map(_inside_of, jaxprs_of(params))), None)


def _inside_of(jaxpr: Any) -> Any:
    if jaxpr not in _inside:
        _inside[jaxpr] = next(
            filter(None, (_impossible((v.aval for v in e.outvars), e.params) for e in jaxpr.eqns)), None
        )
    return _inside[jaxpr]
