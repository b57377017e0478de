"""Rules as users write them: pairs of filter and placement, read into ``Rule``."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, get_args

from shardinit.errors import ArgumentError, ArgumentTypeError
from shardinit.planner.rules import has_name
from shardinit.spec.options import OPEN, AskedStrategy, Rule
from shardinit.spec.states import StateSpec
from shardinit.wording import kind_of


def read_rules(rules: Any, states: Sequence[StateSpec], objects: Sequence[Any]) -> tuple[Rule, ...]:
    """Read pairs of filter and placement.

    Parameters
    ----------
    rules
        Pairs of filter and placement, in order.
    states
        The descriptions of all states.
    objects
        The State objects, where the descriptions are those of a program; else the descriptions again.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If a rule cannot be read.
    """
    if isinstance(rules, (str, dict)) or not isinstance(rules, Iterable):
        raise ArgumentTypeError(
            f"rules is {kind_of(rules)}. Pass pairs of filter and placement, such as "
            "rules=[('layers/*/weight', ('lanes', None, 'model'))]."
        )
    return tuple(_read(rule, states, objects) for rule in rules)


def _read(rule: Any, states: Sequence[StateSpec], objects: Sequence[Any]) -> Rule:
    if not isinstance(rule, (tuple, list)) or len(rule) != 2:
        raise ArgumentTypeError(
            f"rule {rule!r} is not a pair. Write (filter, placement), such as ('*/weight', 'replicate')."
        )
    the_filter, placement = rule
    text = f"({the_filter if isinstance(the_filter, str) else _short(the_filter)!s} -> {_placement_text(placement)})"
    matches = the_filter if isinstance(the_filter, str) else tuple(sorted(_numbers(the_filter, states, objects)))
    return _placed(matches, text, placement)


def _numbers(the_filter: Any, states: Sequence[StateSpec], objects: Sequence[Any]) -> set[int]:
    """Numbers of the states that a filter matches: as brainstate reads it, but that a string is a glob or a tag."""
    pairs = list(enumerate(zip(states, objects, strict=True)))
    if isinstance(the_filter, str):
        return {number for number, (state, _) in pairs if has_name(state, the_filter)}
    if isinstance(the_filter, (list, tuple)):
        return set().union(*(_numbers(each, states, objects) for each in the_filter))
    if isinstance(the_filter, type) and any(state is found for state, found in zip(states, objects, strict=True)):
        return {number for number, (state, _) in pairs if state.state_class == the_filter.__name__}
    if the_filter is ... or the_filter is True:  # attributes too, which have no State that a predicate could look at
        return {number for number, _ in pairs}
    from brainstate.util.filter import to_predicate

    try:
        predicate = to_predicate(the_filter)
    except TypeError:
        raise ArgumentTypeError(
            f"filter {the_filter!r} is {kind_of(the_filter)}. Use a glob over the path such as 'layers/*/weight', "
            "a State class, a tag, or a function of path and state."
        ) from None
    return {n for n, (state, found) in pairs if found is not None and predicate(state.path, found)}


def _short(the_filter: Any) -> str:
    if the_filter is ...:
        return "..."
    name = getattr(the_filter, "__qualname__", None) or str(the_filter)
    return re.sub(r" at 0x[0-9a-f]+", "", name)  # an address would differ from process to process


def _placement_text(placement: Any) -> str:
    if isinstance(placement, str) or not _is_axes(placement):
        return str(placement)
    return f"({', '.join(map(str, placement))})"


def _is_axes(placement: Any) -> bool:
    return isinstance(placement, Iterable) and not isinstance(placement, (str, dict))


def _placed(matches: str | tuple[int, ...], text: str, placement: Any) -> Rule:
    strategies = [s for s in get_args(AskedStrategy) if s != "auto"]
    if isinstance(placement, str):
        if placement == "replicate":
            return Rule(matches, text, replicate=True)
        if placement in strategies:
            return Rule(matches, text, strategy=placement)  # type: ignore[arg-type]  # it is one of them
        raise ArgumentError(
            f"rule {text}: placement {placement!r} is not known. Use 'replicate', "
            f"{', '.join(map(repr, strategies))}, or mesh axes per array axis, such as ('lanes', None, 'model')."
        )
    if not _is_axes(placement):
        raise ArgumentTypeError(
            f"rule {text}: placement is {kind_of(placement)}. Use 'replicate', a strategy, or mesh axes per "
            "array axis, such as ('lanes', None, 'model')."
        )
    axes = tuple(OPEN if axis is ... else axis for axis in placement)
    for axis in axes:
        if axis is not None and not isinstance(axis, str):
            raise ArgumentTypeError(
                f"rule {text}: {axis!r} is {kind_of(axis)}. Name one mesh axis per array axis, or None, or ... "
                "to leave it open."
            )
    named = [a for a in axes if a not in (None, OPEN)]
    if len(set(named)) < len(named):
        raise ArgumentError(f"rule {text} names a mesh axis twice. One mesh axis splits one array axis.")
    return Rule(matches, text, axes=axes)
