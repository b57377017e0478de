"""Objects of the host whose state is not seen as attributes or items: generators of random numbers, iterators, buffers.

Each kind says where such an object stands (``read``), and puts it back there (``write``).
"""

import array
import pickle
import random
import types
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

GENERATORS = (np.random.Generator, np.random.RandomState, np.random.BitGenerator, np.random.SeedSequence, random.Random)
ITERATORS = frozenset({"builtins", "itertools", "array", "collections", "_collections"})  # where their types are
BUFFERS = (bytearray, array.array)
# The generators behind the functions of ``numpy.random`` and ``random``.
GLOBAL_GENERATORS = {"numpy.random": getattr(np.random.rand, "__self__"), "random": getattr(random.random, "__self__")}  # noqa: B009


def kind_of(value: Any) -> str | None:
    """``generator``, ``buffer`` or ``iterator``, or None for anything else."""
    if isinstance(value, GENERATORS):
        return None if isinstance(value, random.SystemRandom) else "generator"
    if isinstance(value, BUFFERS):
        return "buffer"
    return "iterator" if isinstance(value, Iterator) and type(value).__module__ in ITERATORS else None


def read(value: Any, kind: str) -> Any:
    """Where the object stands."""
    if kind == "buffer":
        return value[:]
    if kind == "iterator":
        return _position(value)
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, np.random.SeedSequence):
        return value.__reduce__()[2]
    if isinstance(value, np.random.RandomState):
        return value.get_state(legacy=False), _children(value._bit_generator)
    bits = value.bit_generator if isinstance(value, np.random.Generator) else value
    return bits.state, _children(bits)


def write(value: Any, kind: str, held: Any) -> None:
    """Put the object where it stood, if it can be."""
    if kind == "buffer":
        value[:] = held
    elif kind == "iterator":
        if held[0] == "index":
            value.__setstate__(held[1])
    elif isinstance(value, random.Random):
        value.setstate(held)
    elif isinstance(value, np.random.SeedSequence):
        value.__setstate_cython__(held)
    elif isinstance(value, np.random.RandomState):
        value.set_state(held[0])
        _set_children(value._bit_generator, held[1])
    else:
        bits = value.bit_generator if isinstance(value, np.random.Generator) else value
        bits.state = held[0]
        _set_children(bits, held[1])


def is_only_seeded(held: Any) -> bool:
    """Whether a Mersenne Twister has drawn nothing since it was seeded, as ``brainstate.random.seed`` leaves it."""
    if isinstance(held[0], dict):
        return held[0]["bit_generator"] == "MT19937" and held[0]["state"]["pos"] == 624 and not held[0].get("has_gauss")
    return len(held) == 3 and held[1][-1:] == (624,) and held[2] is None


def same(a: Any, b: Any) -> bool:
    """Whether an object stands at the same place."""
    return pickle.dumps(a) == pickle.dumps(b)


def _children(bits: Any) -> Any:
    return read(bits.seed_seq, "generator") if isinstance(bits.seed_seq, np.random.SeedSequence) else None


def _set_children(bits: Any, held: Any) -> None:
    if held is not None:
        write(bits.seed_seq, "generator", held)


def _position(value: Any) -> tuple[Any, ...]:
    """How far an iterator is: its index or what pickle would keep; of a generator, its next instruction."""
    if isinstance(value, types.GeneratorType):
        return ("generator", value.gi_frame and value.gi_frame.f_lasti, value.gi_running)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            reduced = value.__reduce__()
    except (TypeError, RuntimeError):
        return ("unknown",)
    if reduced[0] is iter and len(reduced) == 3 and isinstance(reduced[2], int):
        return ("index", reduced[2])
    inner = [_position(x) if isinstance(x, Iterator) else repr(x) for x in reduced[1]]
    return (repr(reduced[2:]), *inner)
