"""Whose last bits can depend on where in an array an element is, on a CPU, or on what is compiled beside it."""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.extend.core import Literal as JaxprLiteral

from shardinit.lane.equations import UNKNOWN, Atom, Equation, jaxprs_of, name_of, primitive_names
from shardinit.lane.primitives import CALLBACKS, COLLECTIVES, MOVES
from shardinit.plan.specs import NEVER_EVEN, NEVER_EXACT
from shardinit.private_jax import settings_by_name

# Each of these rounds alike wherever in an array an element is: one instruction of the processor, or none.
# Not so "div": a loop that always divides by the same number multiplies by its inverse instead.
ROUND_ALIKE = MOVES.union(
    CALLBACKS,
    {"add", "sub", "mul", "neg", "abs", "max", "min", "sign", "floor", "ceil", "round", "sqrt", "square"},
    {"convert_element_type", "bitcast_convert_type", "clamp", "real", "imag", "conj", "complex", "iota", "is_finite"},
    {
        "reduce_max",
        "reduce_min",
        "sort",
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "add_any",
        "nextafter",
        "reduce_precision",
    },
    {"random_bits", "random_wrap", "random_unwrap", "random_split", "random_fold_in", "random_seed", "threefry2x32"},
)
CONTRACTED = (frozenset({"mul", "square"}), frozenset({"add", "sub", "add_any"}))  # in one program, to one instruction
ALIASES = frozenset(
    {"broadcast_in_dim", "convert_element_type", "copy", "reshape", "squeeze"}
)  # other forms of a value


def rounded_by_place(equations: Sequence[Equation], outputs: Collection[Atom]) -> Iterator[int]:
    """Yield the elements of each array of floats whose last bits can depend on their place in it, on a CPU.

    ``NEVER_EVEN`` and ``NEVER_EXACT`` come with them where more than that decides. ``outputs`` are what the
    equations are there for. Collectives must stay on the mesh axis whose lanes they are over: with one there is nothing
    to choose.
    """
    if any(not COLLECTIVES.isdisjoint(primitive_names(e.primitive, e.params)) for e in equations):
        return
    used = {atom for e in equations for atom in e.inputs} | set(outputs)
    for equation in equations:
        avals, by_place = [v.aval for v in equation.outputs], equation.outputs[0].on_axis
        if not rounds_by_place(equation.primitive, equation.params, avals):
            continue
        walk = _Walk(equation)
        if by_place:
            yield from (math.prod(aval.shape) for aval in avals)
        if _has_unused(equation, used) or (by_place and (_loops_differ(equation) or walk.finds_invariants)):
            yield NEVER_EVEN
        if walk.divides_twice:
            yield NEVER_EXACT


def _has_unused(equation: Equation, used: Collection[Any]) -> bool:
    """Whether nothing needs one of its arrays of floats, so that it is compiled without what eager JAX computes."""
    return bool(jaxprs_of(equation.params)) and any(v not in used and _is_inexact(v.aval) for v in equation.outputs)


@dataclass(frozen=True, slots=True)
class _Value:
    """A value in a jaxpr.

    Attributes
    ----------
    shared
        Whether all lanes share it.
    repeated
        Whether an array that is made of it has each of its numbers more than once.
    source
        What it is made of: the same number for values that a compiler sees to be equal.
    """

    shared: bool
    repeated: bool
    source: int


class _Walk:
    """Looks through an equation for what XLA compiles otherwise for another number of lanes, or for a mesh.

    Attributes
    ----------
    finds_invariants
        Whether something is the same for all lanes, so that a loop over them computes it before it begins; whether
        there is such a loop depends on their number.
    divides_twice
        Whether two arrays are divided by the same numbers. XLA multiplies by the inverse where it sees one division
        alone, and what it sees depends on the program around it.
    """

    def __init__(self, equation: Equation):
        self.finds_invariants = False
        self.divides_twice = False
        self._adds = not CONTRACTED[1].isdisjoint(primitive_names(equation.primitive, equation.params))
        self._divisors: set[int] = set()
        self._numbers: dict[Any, int] = {}
        if jaxprs_of(equation.params):
            self._enter(equation, equation.outputs, [self._given(a.aval, not a.on_axis) for a in equation.inputs])
        else:  # eager JAX has made a whole array of what it divides by
            self.finds_invariants = name_of(equation.primitive) == "div"

    def _given(self, aval: Any, shared: bool) -> _Value:
        return _Value(shared, shared or not aval.shape, self._number(object()))

    def _number(self, source: Any) -> int:
        return self._numbers.setdefault(source, len(self._numbers))

    def _enter(self, equation: Any, outputs: Sequence[Any], values: list[_Value]) -> list[_Value]:
        """Look through the jaxprs of an equation, and say what its outputs are made of."""
        jaxprs = jaxprs_of(equation.params)
        if name_of(equation.primitive) == "jit":
            return self._body(jaxprs[0], values)
        shared = all(value.shared for value in values)
        for jaxpr in jaxprs:
            names = frozenset().union(*(primitive_names(e.primitive, e.params) for e in jaxpr.eqns))
            mixed = any(value.shared for value in values) and not shared
            self.finds_invariants |= mixed and ("div" in names or _contracts(names))
            self._body(jaxpr, [self._given(v.aval, shared) for v in jaxpr.invars])
        return [self._given(v.aval, shared) for v in outputs]

    def _body(self, jaxpr: Any, values: list[_Value]) -> list[_Value]:
        known = dict(zip(jaxpr.invars, values, strict=True))
        known |= {v: self._given(v.aval, True) for v in jaxpr.constvars}

        def read(atom):
            if isinstance(atom, JaxprLiteral):
                return _Value(True, True, self._number(("literal", str(atom.val))))
            return known[atom]

        for equation in jaxpr.eqns:
            reads = [read(atom) for atom in equation.invars]
            if jaxprs_of(equation.params):
                made = self._enter(equation, equation.outvars, reads)
            else:
                made = self._step(equation, reads)
            known.update(zip(equation.outvars, made, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _step(self, equation: Any, reads: list[_Value]) -> list[_Value]:
        name, made = name_of(equation.primitive), equation.outvars[0].aval
        size, shared = math.prod(made.shape), all(value.shared for value in reads)
        if _is_inexact(made) and name == "div" and not isinstance(equation.invars[1], JaxprLiteral):
            self._divide(reads[0], reads[1], of_arrays=bool(equation.invars[1].aval.shape) and size > 1)
        elif _is_inexact(made) and name in CONTRACTED[0]:
            self.finds_invariants |= self._adds and shared and size > 1
        grows = name == "broadcast_in_dim" and math.prod(equation.invars[0].aval.shape) < size
        repeated = grows or all(value.repeated for value in reads)
        numbers = tuple(value.source for value in reads)
        source = numbers[0] if name in ALIASES else self._number((name, *numbers))
        return [_Value(shared, repeated, source) for _ in equation.outvars]

    def _divide(self, dividend: _Value, divisor: _Value, of_arrays: bool) -> None:
        if divisor.repeated:
            self.divides_twice |= divisor.source in self._divisors
            self._divisors.add(divisor.source)
            self.finds_invariants |= of_arrays and divisor.shared and not dividend.shared


def _loops_differ(equation: Equation) -> bool:
    """Whether the compiler writes loops of a part and of the whole otherwise, whatever their sizes."""
    return _draws_halves(equation) or jax.config.read("jax_disable_most_optimizations")


def _draws_halves(equation: Any) -> bool:
    """Whether it draws bits as two halves put together, so that no loop over its elements is an even one."""
    partitionable = settings_by_name(equation.settings)["jax_threefry_partitionable"]
    return not partitionable and "random_bits" in primitive_names(equation.primitive, equation.params)


def rounds_by_place(primitive: Any, params: dict[str, Any], avals: Sequence[Any]) -> bool:
    """Whether the last bits of an equation's outputs, given as abstract values, can depend on the loop around it."""
    jaxprs = jaxprs_of(params)
    if not jaxprs:
        name = name_of(primitive)
        return name == UNKNOWN or (name not in ROUND_ALIKE and any(map(_is_inexact, avals)))
    return _contracts(primitive_names(primitive, params)) or any(
        rounds_by_place(e.primitive, e.params, [v.aval for v in e.outvars]) for j in jaxprs for e in j.eqns
    )


def _contracts(names: Collection[str]) -> bool:
    """Whether a multiply of these primitives may become one instruction with an add."""
    return all(not kind.isdisjoint(names) for kind in CONTRACTED)


def _is_inexact(aval: Any) -> bool:
    return jax.numpy.issubdtype(aval.dtype, jax.numpy.inexact)
