"""How much memory a piece needs beside its outputs, predicted from its equations.

The compiler fuses what works element by element, so only some operations write their results to memory:
random bits, sorts, sums, products, factorizations, loops. A result lives from the operation that makes it
to the last one that reads it, through whatever is fused in between. What lives at the worst moment is the
prediction. The figures are in ``planner/memory_figures.py``; a certificate compares each prediction with the compiler.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from shardinit.lane.equations import UNKNOWN, Atom, Equation, Variable, jaxprs_of, name_of
from shardinit.lane.primitives import CALLS, MOVES
from shardinit.lane.rounding import rounds_by_place
from shardinit.planner.device_bytes import laid_out_bytes
from shardinit.planner.memory_figures import (
    COPIES,
    COPIES_OF_SORTS,
    COPIES_OF_UNKNOWN,
    KEY_BYTES,
    SCRATCH_WORDS,
    SORTS,
    TPU_DRAW_UNITS,
    TPU_OTHER_UNITS,
    TPU_SCALAR_BYTES,
    TPU_UNITS_PER_SCALAR,
    WORD,
)
from shardinit.spec.program import Bytes, PieceMemory

LOOPS = frozenset({"while", "scan", "cond", "custom_linear_solve"})
BITS = frozenset({"random_bits", "threefry2x32", "rng_bit_generator"})

# These write their results; all others are fused into what reads them.
WRITTEN = frozenset(
    {
        UNKNOWN,
        "sort",
        "top_k",
        "approx_top_k",
        "dot_general",
        "ragged_dot_general",
        "conv_general_dilated",
        "fft",
        "argmax",
        "argmin",
    }
    | {"reduce_sum", "reduce_prod", "reduce_max", "reduce_min", "reduce_and", "reduce_or", "reduce_xor", "reduce"}
    | {
        "cumsum",
        "cumprod",
        "cummax",
        "cummin",
        "cumlogsumexp",
        "reduce_window",
        "reduce_window_sum",
        "select_and_scatter",
    }
    | {"scatter", "scatter-add", "scatter-sub", "scatter-mul", "scatter-min", "scatter-max", "dynamic_update_slice"}
    | {"qr", "geqrf", "geqp3", "householder_product", "cholesky", "eigh", "eig", "svd", "lu", "triangular_solve"}
    | {
        "cholesky_update",
        "ormqr",
        "symmetric_product",
        "lu_pivots_to_permutation",
        "tridiagonal_solve",
        "schur",
        "hessenberg",
        "tridiagonal",
        "pure_callback",
        "io_callback",
        "random_gamma",
    }
)


@dataclass(slots=True)
class _Value:
    """A value of the flat program: its bytes for one lane, and the written values that it is read from."""

    bytes: int
    by_lane: bool
    roots: frozenset[int] = frozenset()


@dataclass(slots=True)
class _Event:
    """An operation that writes: what it reads, what it writes, and its own scratch."""

    reads: frozenset[int]
    writes: tuple[int, ...]
    scratch: Bytes
    words: int = 0  # of random bits


def memory_of(equations: Sequence[Equation], outputs: Iterable[Atom]) -> PieceMemory:
    """Predict the temporaries of a piece on each kind of device, for one lane and for what all lanes share."""
    outputs = list(outputs)
    found = {platform: _Flat(platform).worst(equations, outputs) for platform in ("cpu", "gpu", "tpu")}
    apart = _Flat("cpu", apart=True).worst(equations, outputs)
    return PieceMemory(**found, apart=apart, tpu_scalar=_scalar_scratch(equations))


def _scalar_scratch(equations: Sequence[Equation]) -> int:
    """Bytes of scratch of the scalar core on TPU."""
    scalar = sum(all(v.aval.shape == () for v in e.outputs) for e in equations if name_of(e.primitive) not in MOVES)
    draws = any(v.random for e in equations for v in e.outputs)
    if not draws and scalar <= 1:
        return TPU_OTHER_UNITS * TPU_SCALAR_BYTES
    return math.ceil((TPU_DRAW_UNITS + TPU_UNITS_PER_SCALAR * scalar) * TPU_SCALAR_BYTES)


class _Flat:
    """The equations of a piece, calls inlined, as events in order."""

    def __init__(self, platform: str, *, apart: bool = False) -> None:
        self.platform = platform
        self.apart = apart
        self.values: list[_Value] = []
        self.events: list[_Event] = []

    def worst(self, equations: Sequence[Equation], outputs: Iterable[Atom]) -> tuple[Bytes, ...]:
        numbers: dict[Any, int] = {}

        def number(atom: Any) -> int:
            if atom not in numbers:
                numbers[atom] = self.new(atom.aval, atom.on_axis)
            return numbers[atom]

        for equation in equations:
            inputs = [number(a) for a in equation.inputs]
            avals = [v.aval for v in equation.outputs]
            apart = self.apart and rounds_by_place(equation.primitive, equation.params, avals)
            made = self.run(equation, self.written(inputs) if apart else inputs)
            numbers.update(zip(equation.outputs, self.written(made) if apart else made, strict=True))
        return self.peak([number(a) for a in dict.fromkeys(outputs) if isinstance(a, Variable)])

    def new(self, aval: Any, by_lane: bool) -> int:
        self.values.append(_Value(_bytes(aval, self.platform), by_lane))
        return len(self.values) - 1

    def run(self, equation: Any, inputs: list[int]) -> list[int]:
        outputs = equation.outputs if isinstance(equation, Equation) else equation.outvars
        name, jaxprs = name_of(equation.primitive), jaxprs_of(equation.params)
        if name in CALLS and jaxprs:
            return self.inline(jaxprs[0], inputs)
        by_lane = any(self.values[i].by_lane for i in inputs) or any(getattr(v, "on_axis", False) for v in outputs)
        made = [self.new(v.aval, by_lane) for v in outputs]
        reads = frozenset[int]().union(*(self.values[i].roots for i in inputs))
        if name in BITS:
            self.draw(reads, made)
        elif jaxprs or name in LOOPS or name in WRITTEN:
            self.write(name, jaxprs, inputs, reads, made)
        else:
            for i in made:
                self.values[i].roots = reads
        return made

    def inline(self, jaxpr: Any, inputs: Sequence[int]) -> list[int]:
        numbers: dict[Any, int] = dict(zip(jaxpr.invars, inputs, strict=False))

        def number(atom: Any) -> int:
            if hasattr(atom, "val"):
                return self.new(atom.aval, False)
            if atom not in numbers:
                numbers[atom] = self.new(atom.aval, False)
            return numbers[atom]

        for equation in jaxpr.eqns:
            made = self.run(equation, [number(a) for a in equation.invars])
            numbers.update(zip(equation.outvars, made, strict=True))
        return [number(a) for a in jaxpr.outvars]

    def draw(self, reads: frozenset[int], made: list[int]) -> None:
        """Random bits: two words of counts and two of bits per number on CPU; counts alone, of one lane, elsewhere."""
        (bits, *_) = made
        by_lane = self.values[bits].by_lane
        words = sum(max(1, self.values[i].bytes // WORD) for i in made) * WORD
        if self.platform == "cpu":
            halves = [self._buffer(words, by_lane) for _ in range(2)]
            keys = Bytes(KEY_BYTES * by_lane, KEY_BYTES * (not by_lane))
            self.events.append(_Event(reads, tuple(halves), keys, words=2))
            self.values[halves[0]].roots = frozenset(halves)
            roots = frozenset(halves)
        else:
            self.events.append(_Event(reads, (), Bytes(0, 2 * words)))
            roots = reads
        for i in made:
            self.values[i].roots = roots

    def written(self, values: Sequence[int]) -> list[int]:
        """Write values that are otherwise fused into what reads them."""
        made = [self._buffer(self.values[i].bytes, self.values[i].by_lane) for i in values]
        reads = frozenset[int]().union(*(self.values[i].roots for i in values))
        self.events.append(_Event(reads, tuple(made), Bytes()))
        return made

    def _buffer(self, size: int, by_lane: bool) -> int:
        self.values.append(_Value(size, by_lane))
        number = len(self.values) - 1
        self.values[number].roots = frozenset({number})
        return number

    def write(self, name: Any, jaxprs: Any, inputs: Any, reads: Any, made: Any) -> None:
        size = Bytes.total(self._size(i) for i in made)
        copies = _copies(name, self.platform)
        scratch = Bytes(size.lane * copies, size.shared * copies)
        words = SCRATCH_WORDS.get(name, {}).get(self.platform, 0)
        scratch += Bytes(size.lane * words, size.shared * words)
        scratch += max((self._inside(j, made) for j in jaxprs), default=Bytes(), key=lambda b: b.lane + b.shared)
        for i in made:
            self.values[i].roots = frozenset({i})
        self.events.append(_Event(reads, tuple(made), scratch))

    def _inside(self, jaxpr: Any, made: Any) -> Bytes:
        """Temporaries of one pass through the body of a loop or a branch."""
        inner = _Flat(self.platform)
        by_lane = any(self.values[i].by_lane for i in made)
        ends = inner.inline(jaxpr, [inner.new(v.aval, by_lane) for v in jaxpr.invars])
        return max(inner.peak(ends), default=Bytes(), key=lambda b: b.lane + b.shared)

    def _size(self, number: int) -> Bytes:
        value = self.values[number]
        return Bytes(value.bytes, 0) if value.by_lane else Bytes(0, value.bytes)

    def peak(self, outputs: Sequence[int]) -> tuple[Bytes, ...]:
        """What lives beside the outputs at each moment that can be the worst."""
        events = list(self.events)
        made_at = {i: at for at, e in enumerate(events) for i in e.writes}
        last = {i: at for at, e in enumerate(events) for i in e.reads}
        done: dict[int, int] = {}
        for output in outputs:
            roots = self.values[output].roots
            done[output] = max((made_at.get(r, -1) for r in roots), default=-1)
            for r in roots - {output}:
                last[r] = max(last.get(r, -1), done[output])
        moments = []
        for at, event in enumerate(events):
            live = [i for i, born in made_at.items() if born <= at <= last.get(i, born) and i not in done]
            moment = Bytes.total(self._size(i) for i in live) + event.scratch
            for _ in range(event.words):  # the counts live with the bits
                moment += self._size(event.writes[0])
            if self.platform != "tpu":
                moment -= self._lent(live, [o for o in outputs if done[o] >= at and o not in made_at], event)
            moments.append(moment)
        return _pareto(moments)

    def _lent(self, live: list[int], unwritten: list[int], event: _Event) -> Bytes:
        """Memory of outputs still to be written, which temporaries that fit may use until then."""
        buffers = sorted((self.values[i].bytes for i in live if self.values[i].by_lane), reverse=True)
        lent = 0
        for room in sorted((self.values[o].bytes for o in unwritten if self.values[o].by_lane), reverse=True):
            fitting = next((b for b in buffers if b <= room), 0)
            if fitting:
                buffers.remove(fitting)
                lent += fitting
        return Bytes(lent, 0)


def _copies(name: str, platform: str) -> int:
    """Copies of its result that a backend works on for a primitive."""
    if name == UNKNOWN:
        return COPIES_OF_UNKNOWN
    return COPIES_OF_SORTS[platform] if name in SORTS else COPIES[platform].get(name, 0)


def _bytes(aval: Any, platform: str) -> int:
    if not hasattr(aval, "shape") or not hasattr(aval, "dtype"):
        return 0
    return laid_out_bytes(aval.shape, aval.dtype.itemsize, platform)


def _pareto(moments: Iterable[Bytes]) -> tuple[Bytes, ...]:
    """Keep the moments that are the worst for some number of lanes."""
    kept: list[Bytes] = []
    for moment in sorted(set(moments), key=lambda b: (-b.lane, -b.shared)):
        if moment.lane + moment.shared and (not kept or moment.shared > kept[-1].shared):
            kept.append(moment)
    return tuple(kept)
