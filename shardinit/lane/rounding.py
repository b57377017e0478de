"""Which values have last bits that depend, on a CPU, on their place in an array or on what is compiled with them."""

import itertools
import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.extend.core import Literal as JaxprLiteral

from shardinit.backend.private_jax import settings_by_name
from shardinit.lane.equations import UNKNOWN, Atom, Equation, jaxprs_of, name_of, names_in, primitive_names
from shardinit.lane.primitives import CALLBACKS, CALLS, COLLECTIVES, MOVES

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
COMPLEX_PRODUCTS = frozenset({"mul", "square"})  # of complex numbers: products and sums of their parts
# These only change the form of a value.
ALIASES = frozenset({"broadcast_in_dim", "convert_element_type", "copy", "reshape", "squeeze"})


@dataclass(frozen=True, slots=True)
class Rounded:
    """What the last bits of the values of a piece depend on, on a CPU.

    Attributes
    ----------
    elements
        Elements of each array of floats that is made for each lane and may round by their place in it.
    shared_elements
        Those of arrays that all lanes share.
    rows
        Lengths of the last axis of arrays of floats, if some may round by the loop around them; 1 for such a number.
    fused_rows
        Those of arrays that eager JAX, too, makes in one loop with others: by a ``jit``, such as a draw.
    chained
        Whether several operations may round by the loop around them, so that they should not be in one loop.
    never_even
        Whether parts of them are compiled differently from the whole, whatever their size.
    never_exact
        Whether XLA may compile them differently from eager JAX wherever they are in a larger program, on any device.
    """

    elements: tuple[int, ...] = ()
    shared_elements: tuple[int, ...] = ()
    rows: tuple[int, ...] = ()
    fused_rows: tuple[int, ...] = ()
    chained: bool = False
    never_even: bool = False
    never_exact: bool = False


def rounded_by_place(equations: Sequence[Equation], outputs: Collection[Atom]) -> Rounded:
    """Say how equations round; ``outputs`` are what they are there for.

    Collectives must stay on the mesh axis whose lanes they are over, so nothing can be chosen for a piece with one.
    """
    if any(not COLLECTIVES.isdisjoint(primitive_names(e.primitive, e.params)) for e in equations):
        return Rounded()
    used = {atom for e in equations for atom in e.inputs} | set(outputs)
    elements: set[int] = set()
    shared: set[int] = set()
    rows: set[int] = set()
    fused_rows: set[int] = set()
    never_even = never_exact = False
    count = 0  # of operations that round by their loop
    for equation in equations:
        avals = [v.aval for v in equation.outputs]
        rows.update(aval.shape[-1] for aval in avals if aval.shape and _is_inexact(aval))
        if not rounds_by_place(equation.primitive, equation.params, avals):
            continue
        count += 2 if any(map(_is_complex, avals)) else 1  # its parts are several operations
        rows.update(1 for aval in avals if not aval.shape and _is_inexact(aval))
        if _operations_inside(equation) > 1:
            fused_rows.update(aval.shape[-1] for aval in avals if aval.shape and _is_inexact(aval))
        walk = _Walk(equation)
        never_even |= _has_unused(equation, used)
        never_exact |= walk.reuses_divisor
        if equation.outputs[0].on_axis:
            elements.update(math.prod(aval.shape) for aval in avals)
            never_even |= _loops_differ(equation) or walk.hoists
        else:
            shared.update(math.prod(aval.shape) for aval in avals)
    return Rounded(
        tuple(sorted(elements)),
        tuple(sorted(shared)),
        tuple(sorted(rows)) if count else (),
        tuple(sorted(fused_rows)),
        count > 1,
        never_even,
        never_exact,
    )


def _operations_inside(equation: Any) -> int:
    """Number of operations in the jaxprs that it carries, without those that only move numbers."""
    inside = [e for jaxpr in jaxprs_of(equation.params) for e in jaxpr.eqns]
    return sum(_operations_inside(e) if jaxprs_of(e.params) else name_of(e.primitive) not in MOVES for e in inside)


def _has_unused(equation: Equation, used: Collection[Any]) -> bool:
    """Whether nothing needs one of its arrays of floats, so that XLA drops what eager JAX computes."""
    return bool(jaxprs_of(equation.params)) and any(v not in used and _is_inexact(v.aval) for v in equation.outputs)


@dataclass(frozen=True, slots=True)
class _Value:
    """A value in a jaxpr.

    Attributes
    ----------
    shared
        Whether all lanes share it.
    repeated
        Whether it is a scalar, or made by broadcasting.
    source
        What it is made of: the same number for values that a compiler sees to be equal.
    """

    shared: bool
    repeated: bool
    source: int


class _Walk:
    """Looks through an equation for what XLA compiles differently in another program.

    Attributes
    ----------
    hoists
        Whether something is computed from what all lanes share, or inverted. A loop over the lanes computes that before
        it begins, and so rounds it alone; how many lanes there are decides whether there is a loop.
    reuses_divisor
        Whether arrays are divided by repeated numbers that are also read in another way. XLA multiplies by the inverse
        where the division is the only reader, and what it sees then depends on the program around it.
    """

    def __init__(self, equation: Equation) -> None:
        self.hoists = False
        self._adds = not CONTRACTED[1].isdisjoint(primitive_names(equation.primitive, equation.params))
        self._divisors: set[int] = set()
        self._uses: Counter[int] = Counter()
        self._numbers: dict[Any, int] = {}
        self._fresh = itertools.count()
        if jaxprs_of(equation.params):
            self._inside(equation, equation.outputs, [self._value(a.aval, not a.by_lane) for a in equation.inputs])
        else:  # eager JAX has made a whole array of what it divides by
            self.hoists = name_of(equation.primitive) == "div"

    @property
    def reuses_divisor(self) -> bool:
        return any(self._uses[source] > 1 for source in self._divisors)

    def _value(self, aval: Any, shared: bool) -> _Value:
        return _Value(shared, not aval.shape, next(self._fresh))

    def _inside(self, equation: Any, outputs: Sequence[Any], inputs: list[_Value]) -> list[_Value]:
        """Look through the jaxprs of an equation, and say what its outputs are made of."""
        jaxprs = jaxprs_of(equation.params)
        if name_of(equation.primitive) in CALLS and len(jaxprs[0].invars) == len(inputs):
            return self._jaxpr(jaxprs[0], inputs)
        self._uses.update({value.source for value in inputs})
        shared = all(value.shared for value in inputs)
        for jaxpr, given in self._bodies(equation, jaxprs, inputs):
            self._jaxpr(jaxpr, given)
        return [self._value(v.aval, shared) for v in outputs]

    def _bodies(self, equation: Any, jaxprs: Sequence[Any], inputs: list[_Value]) -> Iterator[tuple[Any, list[_Value]]]:
        """Yield each jaxpr of a loop or a choice with what goes into it; what a loop hands on may differ by lane."""
        shared = all(value.shared for value in inputs)

        def handed_on(jaxpr: Any, constants: Any) -> Any:
            return [*constants, *(self._value(v.aval, shared) for v in jaxpr.invars[len(constants) :])]

        name, params = name_of(equation.primitive), equation.params
        if name == "cond":
            yield from ((jaxpr, inputs[1:]) for jaxpr in jaxprs)
        elif name == "while":
            ends = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
            of_cond, of_body = inputs[: ends[0]], inputs[ends[0] : ends[1]]
            yield params["cond_jaxpr"].jaxpr, handed_on(params["cond_jaxpr"].jaxpr, of_cond)
            yield params["body_jaxpr"].jaxpr, handed_on(params["body_jaxpr"].jaxpr, of_body)
        else:  # what of it is the same for all lanes is not told apart
            for jaxpr in jaxprs:
                if not shared and any(value.shared for value in inputs):
                    self.hoists |= _contracts(names_in(jaxpr))
                    self.hoists |= any(
                        rounds_by_place(e.primitive, e.params, [v.aval for v in e.outvars]) for e in jaxpr.eqns
                    )
                yield jaxpr, handed_on(jaxpr, [])

    def _jaxpr(self, jaxpr: Any, inputs: list[_Value]) -> list[_Value]:
        known = dict(zip(jaxpr.invars, inputs, strict=True))
        known |= {v: self._value(v.aval, True) for v in jaxpr.constvars}

        def read(atom: Any) -> Any:
            return _Value(True, True, next(self._fresh)) if isinstance(atom, JaxprLiteral) else known[atom]

        for equation in jaxpr.eqns:
            values = [read(atom) for atom in equation.invars]
            if jaxprs_of(equation.params):
                made = self._inside(equation, equation.outvars, values)
            else:
                made = self._step(equation, values) if equation.outvars else []
            known.update(zip(equation.outvars, made, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _step(self, equation: Any, inputs: list[_Value]) -> list[_Value]:
        name, made = name_of(equation.primitive), equation.outvars[0].aval
        size, shared = math.prod(made.shape), all(value.shared for value in inputs)
        if _is_inexact(made) and size > 1:
            divides = name == "div" and not isinstance(equation.invars[1], JaxprLiteral) and _is_broadcast(*inputs)
            if divides:
                self._divisors.add(inputs[1].source)
                # By one number of all lanes: always multiplied by its inverse.
                self.hoists |= not (inputs[1].shared and inputs[1].repeated)
            self.hoists |= shared and (name not in ROUND_ALIKE or (self._adds and name in CONTRACTED[0]))
        if name not in ALIASES and size > 1:
            self._uses.update({value.source for value in inputs})
        grows = name == "broadcast_in_dim" and math.prod(equation.invars[0].aval.shape) < size
        repeated = not made.shape or grows or all(value.repeated for value in inputs)
        # Parameters are left out: what differs in them alone is taken to be equal, which can only name too much.
        key = (name, *(value.source for value in inputs))
        source = inputs[0].source if name in ALIASES else self._numbers.setdefault(key, next(self._fresh))
        return [_Value(shared, repeated, source) for _ in equation.outvars]


def _is_broadcast(dividend: _Value, divisor: _Value) -> bool:
    return divisor.repeated or (divisor.shared and not dividend.shared)


def _loops_differ(equation: Equation) -> bool:
    """Whether the compiler writes loops of a part and of the whole differently, whatever their sizes."""
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
        alike = name in ROUND_ALIKE and not (name in COMPLEX_PRODUCTS and any(map(_is_complex, avals)))
        return name == UNKNOWN or (not alike and any(map(_is_inexact, avals)))
    return _contracts(primitive_names(primitive, params)) or any(
        rounds_by_place(e.primitive, e.params, [v.aval for v in e.outvars]) for j in jaxprs for e in j.eqns
    )


def _contracts(names: Collection[str]) -> bool:
    """Whether a multiply of these primitives may become one instruction with an add."""
    return all(not kind.isdisjoint(names) for kind in CONTRACTED)


def _is_complex(aval: Any) -> bool:
    return jax.numpy.issubdtype(aval.dtype, jax.numpy.complexfloating)


def _is_inexact(aval: Any) -> bool:
    return jax.numpy.issubdtype(aval.dtype, jax.numpy.inexact)
