"""The words of a program: all of them, or some, so that many programs share what is compiled."""

import random
from dataclasses import dataclass, replace

from tests.fuzz import operations as ops
from tests.fuzz import samplers
from tests.fuzz.operations import Operation, Shape

Sampler = tuple[str, str, Shape]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What programs are written from: fields as in ``operations`` and ``samplers``."""

    shapes: tuple[Shape, ...]
    floats: tuple[str, ...]
    integers: tuple[str, ...]
    booleans: tuple[str, ...]
    others: tuple[Sampler, ...]
    keyed: tuple[str, ...]
    keyed_integers: tuple[str, ...]
    keyed_others: tuple[Sampler, ...]
    elementwise: tuple[str, ...]
    calls: tuple[str, ...]
    vector_calls: tuple[str, ...]
    pair_calls: tuple[str, ...]
    operations: tuple[Operation, ...]
    shared: tuple[Sampler, ...]
    values: tuple[str, ...]


def whole(slow: bool = True) -> Vocabulary:
    """Everything; without the samplers that are slow to compile, if wanted."""
    return Vocabulary(
        ops.SHAPES,
        samplers.FLOATS + samplers.SLOW_FLOATS * slow,
        samplers.INTEGERS + samplers.SLOW_INTEGERS * slow,
        samplers.BOOLEANS,
        samplers.OTHERS + samplers.SLOW_OTHERS * slow,
        samplers.KEYED + samplers.SLOW_KEYED * slow,
        samplers.KEYED_INTEGERS + samplers.SLOW_KEYED_INTEGERS * slow,
        samplers.KEYED_OTHERS + samplers.SLOW_KEYED_OTHERS * slow,
        ops.ELEMENTWISE,
        ops.CALLS,
        ops.VECTOR_CALLS,
        ops.PAIR_CALLS,
        ops.OPERATIONS,
        ops.SHARED,
        ops.VALUES,
    )


COUNTS = (2, 4, 2, 1, 2, 3, 2, 2, 6, 5, 2, 2, 40, 5, 6)


def some(number: int, slow: bool = True, wide: bool = False) -> Vocabulary:
    """A part of everything, drawn by a seed; with one wide shape and chains of functions of floats, if wanted."""
    pick, everything = random.Random(number), whole(slow)
    lists = [getattr(everything, name) for name in Vocabulary.__dataclass_fields__]
    picked = [tuple(pick.sample(words, min(n, len(words)))) for words, n in zip(lists, COUNTS, strict=True)]
    words = Vocabulary(*picked)
    if not wide:
        return words
    chains = [o for o in everything.operations if {*o.takes, o.gives} == {"f"} and o.shape in (ops.same, ops.broadcast)]
    return replace(words, shapes=(pick.choice(ops.WIDE_SHAPES),), operations=tuple(pick.sample(chains, 20)))
