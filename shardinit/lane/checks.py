"""Checks and prints inside init: taken out of the pieces, and evaluated separately.

brainstate's ``jit_error_if`` (in truncated normals, Bernoulli draws, so in most default initializers)
is a ``cond`` whose true branch raises from an ordered callback, and ordered effects do not compile for
more than one device. Only its predicate matters, unless it holds.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shardinit.backend.private_jax import acts
from shardinit.lane.equations import Atom, Equation, name_of, slice_of
from shardinit.lane.primitives import calls_back, has_checks_inside, read_by


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

    @property
    def reads(self) -> tuple[Atom, ...]:
        """What is to be there before it can be run.

        That is the predicate alone where there is one: what else an error message shows is computed again, for
        the lane that fails. But nothing is asked of the host a second time.
        """
        inputs = tuple(dict.fromkeys(read_by(self.equation)))
        if self.predicate is None:
            return inputs
        again = any(calls_back(e) != "no" for e in slice_of(inputs))
        return tuple(dict.fromkeys((self.predicate, *inputs))) if again else (self.predicate,)


def find_checks(effectful: Iterable[Equation], in_pieces: Sequence[Equation]) -> list[Check]:
    """Make a check of every effectful equation, unless it is a single call that a piece makes anyway."""
    inside = {e.serial for e in in_pieces}
    checks = []
    for equation in effectful:
        if equation.serial in inside:
            if has_checks_inside(equation.params):  # the piece has it without
                checks.append(Check(equation, None))
        elif name_of(equation.primitive) == "cond":
            branches = equation.params["branches"]
            # A cond gives every branch the effects of all, so look at what each one really does.
            acting = frozenset(i for i, b in enumerate(branches) if any(acts(e.effects) for e in b.jaxpr.eqns))
            checks.append(Check(equation, equation.inputs[0], acting))
        else:
            checks.append(Check(equation, None))
    return checks
