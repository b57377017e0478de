"""Which arrays from outside a piece reads number by number, so that each device needs its own part of them only."""

import math
from collections.abc import Sequence
from typing import Any

from jax.extend.core import Literal

from shardinit.backend.private_jax import NUMBER_BY_NUMBER
from shardinit.lane.equations import UNKNOWN, jaxprs_of, name_of
from shardinit.lane.primitives import COLLECTIVES, contains
from shardinit.lane.structure import Source, Structure


def aligned_constants(structure: Structure) -> tuple[bool, ...]:
    """Tell of each constant of a structure whether its axes are those of every output, and it is read so alone."""
    shapes = {aval.shape for _, aval in structure.outputs}
    unclear = any(contains(e, COLLECTIVES | {UNKNOWN}) for e in structure.equations)
    return tuple(
        not unclear and shapes == {aval.shape} and math.prod(aval.shape) > 1 and _is_aligned(structure, at)
        for at, aval in enumerate(structure.constants)
    )


def _is_aligned(structure: Structure, at: int) -> bool:
    shape = structure.constants[at].shape
    made_of: set[Source] = {("constant", at)}
    for number, (equation, sources) in enumerate(zip(structure.equations, structure.sources, strict=True)):
        reads = [source in made_of for source in sources]
        if any(reads):
            made = _made_of(equation, [v.aval for v in equation.outputs], reads, shape)
            if made is None:
                return False
            made_of.update(("equation", number, j) for j, is_made in enumerate(made) if is_made)
    return True


def _made_of(equation: Any, avals: Sequence[Any], reads: Sequence[bool], shape: tuple[int, ...]) -> list[bool] | None:
    """Which outputs are made of the inputs that are marked, number by number; None if they are read in another way."""
    name = name_of(equation.primitive)
    if name != "jit":
        by_number = name in NUMBER_BY_NUMBER and all(aval.shape == shape for aval in avals)
        return [True] * len(avals) if by_number else None
    (jaxpr,) = jaxprs_of(equation.params)
    known = {v for v, is_read in zip(jaxpr.invars, reads, strict=True) if is_read}
    for inner in jaxpr.eqns:
        marked = [not isinstance(a, Literal) and a in known for a in inner.invars]
        if any(marked):
            made = _made_of(inner, [v.aval for v in inner.outvars], marked, shape)
            if made is None:
                return None
            known.update(v for v, is_made in zip(inner.outvars, made, strict=True) if is_made)
    return [not isinstance(v, Literal) and v in known for v in jaxpr.outvars]
