"""Checks and prints inside init: taken out of the pieces, and evaluated separately.

brainstate's ``jit_error_if`` (in truncated normals, Bernoulli draws, so in most default initializers)
is a ``cond`` whose true branch raises from an ordered callback, and ordered effects do not compile for
more than one device. Only its predicate matters, unless it holds.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shardinit.lane.equations import Atom, Equation, jaxprs_of, name_of


@dataclass(frozen=True, slots=True, eq=False)
class Check:
    """An equation that is run for its effect alone.

    Attributes
    ----------
    equation
        What to run.
    predicate
        The branch index of a ``cond``: it is run only where that branch has effects. None: always run.
    branches
        The branches that have effects.
    """

    equation: Equation
    predicate: Atom | None
    branches: frozenset[int] = frozenset()


def find_checks(effectful: Iterable[Equation], in_pieces: Sequence[Equation]) -> list[Check]:
    """Make a check of every effectful equation, unless it is a single call that a piece makes anyway."""
    inside = {e.serial for e in in_pieces}
    checks = []
    for equation in effectful:
        if equation.serial in inside:
            if jaxprs_of(equation.params):  # the piece has it without its checks
                checks.append(Check(equation, None))
        elif name_of(equation.primitive) == "cond":
            branches = equation.params["branches"]
            # A cond gives every branch the effects of all, so look at what each one really does.
            acting = frozenset(i for i, b in enumerate(branches) if any(e.effects for e in b.jaxpr.eqns))
            checks.append(Check(equation, equation.inputs[0], acting))
        else:
            checks.append(Check(equation, None))
    return checks
