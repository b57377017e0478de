"""What the host is asked for by all lanes together: it runs once, on one device, before everything else."""

from collections.abc import Collection, Iterable

from shardinit.lane.equations import Equation, Variable
from shardinit.lane.pieces import Piece, piece_of
from shardinit.lane.primitives import calls_back


def runs_once(equation: Equation) -> bool:
    """Whether an equation calls the host for a value that all lanes share."""
    return not any(v.on_axis for v in equation.outputs) and calls_back(equation) != "no"


def once_pieces(equations: Iterable[Equation], keys: Collection[Variable]) -> tuple[list[Piece], set[Variable]]:
    """Make a piece of each equation that runs once, with what leads to it, in the order of the trace.

    Arithmetic that also leads to other values is computed again for those. The variables are what the pieces hand on.
    """
    once = [e for e in equations if runs_once(e)]
    made = {v for e in once for v in e.outputs}
    return [piece_of([(None, v) for v in e.outputs], keys, made.__contains__) for e in once], made
