"""Rules: the user's word on where states go, before the planner's own choice."""

import fnmatch
from collections.abc import Sequence

from shardinit.errors import PlanError
from shardinit.spec.options import Rule
from shardinit.spec.states import StateSpec
from shardinit.wording import counted


def match_rules(rules: Sequence[Rule], states: Sequence[StateSpec]) -> list[Rule | None]:
    """Find the first rule that matches each state.

    Raises
    ------
    PlanError
        If a rule matches no state.
    """
    found: list[Rule | None] = [None] * len(states)
    for rule in rules:
        hits = [number for number, state in enumerate(states) if is_ruled(state) and _matches(rule, number, state)]
        if not hits:
            names = ", ".join(repr(s.name) for s in states[:3])
            raise PlanError(
                f"rule {rule.text} matches none of {counted(len(states), 'state')}. Paths look like {names}"
                f"{' ...' if len(states) > 3 else ''}; change the filter, or remove the rule."
            )
        for number in hits:
            found[number] = found[number] or rule
    return found


def is_ruled(state: StateSpec) -> bool:
    """Whether rules apply to it: not to an attribute that is the same for all lanes."""
    return state.kind != "attribute" or state.out_axis is not None


def has_name(state: StateSpec, pattern: str) -> bool:
    """Whether a glob matches the path of a state, or the text is one of its tags."""
    return pattern in (*state.tags, state.name) or fnmatch.fnmatchcase(state.name, pattern)


def _matches(rule: Rule, number: int, state: StateSpec) -> bool:
    return has_name(state, rule.matches) if isinstance(rule.matches, str) else number in rule.matches
