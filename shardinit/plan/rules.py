"""Rules: the user's word on where states go, before the planner's own choice."""

import fnmatch
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from shardinit.errors import ArgumentError, ArgumentTypeError, PlanError
from shardinit.plan.init_plan import Strategy
from shardinit.plan.specs import StateSpec
from shardinit.wording import counted, kind_of

OPEN: Any = ...  # an axis that a rule leaves to the planner


@dataclass(frozen=True, slots=True)
class Placed:
    """What a rule says of the states it matches.

    Attributes
    ----------
    text
        The rule as it was written, for reasons and errors.
    strategy
        A strategy; None leaves it open.
    axes
        A mesh axis, None (not split) or ``OPEN`` per array axis of the whole array, lanes included; None
        leaves all open.
    replicate
        Whether every device holds all of it.
    """

    text: str
    strategy: str | None = None
    axes: tuple[Any, ...] | None = None
    replicate: bool = False


def match_rules(rules: Any, specs: Sequence[StateSpec], states: Sequence[Any]) -> list[Placed | None]:
    """Find the first rule that matches each state.

    Parameters
    ----------
    rules
        Pairs of filter and placement, in order.
    specs
        Of all states.
    states
        The State objects, where the specs are of a program; else the specs again.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If a rule cannot be read.
    PlanError
        If a rule matches no state.
    """
    if isinstance(rules, (str, dict)) or not isinstance(rules, Iterable):
        raise ArgumentTypeError(
            f"rules is {kind_of(rules)}. Pass pairs of filter and placement, such as "
            "rules=[('layers/*/weight', ('lanes', None, 'model'))]."
        )
    read = [_read(rule) for rule in rules]
    found: list[Placed | None] = [None] * len(specs)
    for matches, placed in read:
        hits = [i for i, spec in enumerate(specs) if _is_ruled(spec) and matches(spec, states[i])]
        if not hits:
            names = ", ".join(repr(s.name) for s in specs[:3])
            raise PlanError(
                f"rule {placed.text} matches none of {counted(len(specs), 'state')}. Paths look like {names}"
                f"{' ...' if len(specs) > 3 else ''}; mend the filter, or take the rule out."
            )
        for i in hits:
            if found[i] is None:
                found[i] = placed
    return found


def _is_ruled(spec: StateSpec) -> bool:
    """Whether rules are about it: not about what lies outside of States and is the same for all lanes."""
    return spec.kind != "attribute" or spec.out_axis is not None


def _read(rule: Any) -> tuple[Callable[[StateSpec, Any], bool], Placed]:
    if not isinstance(rule, (tuple, list)) or len(rule) != 2:
        raise ArgumentTypeError(
            f"rule {rule!r} is no pair. Write (filter, placement), such as ('*/weight', 'replicate')."
        )
    the_filter, placement = rule
    text = f"({the_filter if isinstance(the_filter, str) else _short(the_filter)!s} -> {_placement_text(placement)})"
    return _predicate(the_filter), _placed(placement, text)


def _short(the_filter: Any) -> str:
    if the_filter is ...:
        return "..."
    name = getattr(the_filter, "__qualname__", None) or str(the_filter)
    return re.sub(r" at 0x[0-9a-f]+", "", name)  # an address would differ from process to process


def _placement_text(placement: Any) -> str:
    return (
        placement
        if isinstance(placement, str)
        else f"({', '.join(map(str, placement))})"
        if _is_axes(placement)
        else str(placement)
    )


def _is_axes(placement: Any) -> bool:
    return isinstance(placement, Iterable) and not isinstance(placement, (str, dict))


def _placed(placement: Any, text: str) -> Placed:
    strategies = get_args(Strategy)
    if isinstance(placement, str):
        if placement == "replicate":
            return Placed(text, replicate=True)
        if placement in strategies:
            return Placed(text, strategy=placement)
        raise ArgumentError(
            f"rule {text}: placement {placement!r} is not known. Use 'replicate', "
            f"{', '.join(map(repr, strategies))}, or mesh axes per array axis, such as ('lanes', None, 'model')."
        )
    if not _is_axes(placement):
        raise ArgumentTypeError(
            f"rule {text}: placement is {kind_of(placement)}. Use 'replicate', a strategy, or mesh axes per "
            "array axis, such as ('lanes', None, 'model')."
        )
    axes = tuple(placement)
    for axis in axes:
        if axis is not None and axis is not OPEN and not isinstance(axis, str):
            raise ArgumentTypeError(
                f"rule {text}: {axis!r} is {kind_of(axis)}. Name one mesh axis per array axis, or None, or ... "
                "to leave it open."
            )
    named = [a for a in axes if isinstance(a, str)]
    if len(set(named)) < len(named):
        raise ArgumentError(f"rule {text} names a mesh axis twice. One mesh axis splits one array axis.")
    return Placed(text, axes=axes)


def _predicate(the_filter: Any) -> Callable[[StateSpec, Any], bool]:
    """Read a filter as ``brainstate.util.filter.to_predicate`` does; a string is a tag or a glob over the path."""
    if isinstance(the_filter, str):
        return lambda spec, _: the_filter in (*spec.tags, spec.name) or fnmatch.fnmatchcase(spec.name, the_filter)
    if isinstance(the_filter, type):
        return lambda spec, state: (
            spec.state_class == the_filter.__name__ if state is spec else isinstance(state, the_filter)
        )
    if the_filter is ... or the_filter is True:
        return lambda spec, _: True
    if the_filter is None or the_filter is False:
        return lambda spec, _: False
    if callable(the_filter):
        return lambda spec, state: state is not None and bool(the_filter(spec.path, state))
    if isinstance(the_filter, (list, tuple)):
        parts = [_predicate(f) for f in the_filter]
        return lambda spec, state: any(p(spec, state) for p in parts)
    raise ArgumentTypeError(
        f"filter {the_filter!r} is {kind_of(the_filter)}. Use a glob over the path such as 'layers/*/weight', "
        "a State class, a tag, or a function of path and state."
    )
