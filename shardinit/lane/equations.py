"""The traced init as plain data: variables, literals, constants and the equations between them.

A graph rather than a list: every variable points at the equation that made it, so that what no output
needs is freed by Python itself, and a slice of the program is a walk backwards from its outputs.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.extend.core import Literal as JaxprLiteral
from jax.extend.core import Primitive

from shardinit.backend.private_jax import Settings, bind, entered, is_known


class Variable:
    """A value of the lane program.

    Attributes
    ----------
    aval
        Shape and dtype of one lane's value.
    equation
        What makes it; None for an input of the program (a lane key).
    random_index
        For an input: which RandomState's key it is.
    by_lane
        Whether it can differ from lane to lane.
    on_axis
        Whether it needs the mapped axis (a lane key, ``axis_index``, a collective) at all.
    random
        Whether a random number generator's output went into it.
    lost_lanes
        Whether ``jax.vmap`` gives one value for all lanes, though the lanes go into it (``unvmap``).
    """

    __slots__ = ("aval", "by_lane", "equation", "lost_lanes", "on_axis", "random", "random_index")

    def __init__(
        self,
        aval: Any,
        equation: "Equation | None" = None,
        random_index: int | None = None,
        by_lane: bool = False,
        on_axis: bool = False,
        random: bool = False,
    ) -> None:
        self.aval = aval
        self.equation = equation
        self.random_index = random_index
        self.by_lane = by_lane
        self.on_axis = on_axis
        self.random = random
        self.lost_lanes = False


class _Outside:
    """A value from outside the trace: the same on every lane.

    ``staged`` says that JAX has taken a value of the host in: eager JAX would have made an array of it.
    """

    __slots__ = ("aval", "staged", "value")
    by_lane = on_axis = lost_lanes = False

    def __init__(self, value: Any, aval: Any, staged: Any = False) -> None:
        self.value = value
        self.aval = aval
        self.staged = staged

    @property
    def random(self) -> bool:
        """Whether it is a PRNG key, so that what is drawn from it is random."""
        return is_key(self.aval)


class Literal(_Outside):
    """A scalar known during the trace."""

    __slots__ = ()


class Constant(_Outside):
    """An array that existed before the trace: closed over, read from a state, or from NumPy."""

    __slots__ = ()


Atom = Variable | Literal | Constant


@dataclass(slots=True, eq=False)
class Equation:
    """One primitive applied to atoms; ``serial`` is its place in the order of the trace.

    ``settings`` are those of JAX at the line of user code: what is traced or lowered of it is under these.
    ``all_lanes`` says that its values of one lane depend on which other lanes are mapped with it.
    """

    primitive: Primitive
    params: dict[str, Any]
    inputs: list[Atom]
    outputs: list[Variable]
    effects: Any
    serial: int
    settings: Settings
    all_lanes: bool = False

    def evaluate(self, arguments: Any) -> list[Any]:
        """Apply the primitive to values, under whatever trace is current."""
        return self.bind(self.params, arguments)

    def bind(self, params: dict[str, Any], arguments: Any) -> list[Any]:
        """Apply the primitive with these parameters instead of its own."""
        with entered(self.settings):
            return bind(self.primitive, params, arguments)


def as_atom(value: Any) -> Literal | Constant:
    """Wrap a value from outside the trace: a literal if it is a number on the host, else a constant.

    NumPy arrays are copied, since init may go on to change them; a file that is mapped for reading alone is not. A lane
    knows no mesh, so none is in its types.
    """
    aval = jax.typeof(value)
    if isinstance(aval, jax.core.ShapedArray):
        aval = jax.core.ShapedArray(aval.shape, aval.dtype, weak_type=aval.weak_type)
    if isinstance(value, np.ndarray) and not (isinstance(value, np.memmap) and _is_read_only(value)):
        value = value.copy()
    on_host = not isinstance(value, jax.Array)
    return Literal(value, aval) if on_host and aval.shape == () else Constant(value, aval)


def _is_read_only(value: Any) -> bool:
    """Whether nobody can write the memory of an array, through another view of it neither."""
    while isinstance(value, np.ndarray):
        if value.flags.writeable:
            return False
        value = value.base
    return True


def staged(atom: Atom) -> Atom:
    """What a value is once JAX has taken it in (``jnp.array(1.0)``): a number of the host becomes an array."""
    return type(atom)(atom.value, atom.aval, staged=True) if isinstance(atom, _Outside) and is_on_host(atom) else atom


def is_on_host(atom: Atom) -> bool:
    """Whether an atom is a NumPy or Python value that is to stay one."""
    return isinstance(atom, _Outside) and not atom.staged and not isinstance(atom.value, jax.Array)


def is_key(aval: Any) -> bool:
    """Whether the aval is that of typed PRNG keys."""
    return jax.dtypes.issubdtype(aval.dtype, jax.dtypes.prng_key)


def slice_of(ends: Iterable[Atom], stop: Callable[[Variable], bool] = lambda variable: False) -> list[Equation]:
    """Every equation that the ends need, in the order of the trace; nothing behind a variable where it stops."""
    found: dict[int, Equation] = {}
    stack = list(ends)
    while stack:
        atom = stack.pop()
        if not isinstance(atom, Variable) or atom.equation is None or stop(atom):
            continue
        if atom.equation.serial not in found:
            found[atom.equation.serial] = atom.equation
            stack.extend(atom.equation.inputs)
    return [found[serial] for serial in sorted(found)]


def evaluate(outputs: Iterable[Atom], known: dict[Variable, Any], equations: Any = None) -> list[Any]:
    """Evaluate the outputs equation by equation, under whatever trace is current.

    ``known`` gives values to variables (the program's inputs, at least) and is filled on the way.
    """
    outputs = list(outputs)

    def read(atom: Any) -> Any:
        return known[atom] if isinstance(atom, Variable) else atom.value

    for equation in slice_of(outputs, known.__contains__) if equations is None else equations:
        if not all(v in known for v in equation.outputs):
            known.update(zip(equation.outputs, equation.evaluate([read(a) for a in equation.inputs]), strict=True))
    return [jax.device_put(a.value) if isinstance(a, _Outside) and a.staged else read(a) for a in outputs]


_names_inside: "weakref.WeakKeyDictionary[Any, frozenset[str]]" = weakref.WeakKeyDictionary()


UNKNOWN = "?"


def name_of(primitive: Primitive) -> str:
    """Name of a primitive that JAX has and we know; ``UNKNOWN`` for any other, whatever it is called."""
    return primitive.name if is_known(primitive) else UNKNOWN


def primitive_names(primitive: Primitive, params: dict[str, Any]) -> frozenset[str]:
    """Names of a primitive and of all primitives in the jaxprs among its parameters, however deep."""
    return frozenset({name_of(primitive)}).union(*map(names_in, jaxprs_of(params)))


def evaluate_jaxpr(jaxpr: Any, arguments: Iterable[Any], step: Callable[[Any, list[Any]], Iterable[Any]]) -> list[Any]:
    """Evaluate a jaxpr; its constants come before the other arguments, ``step`` applies an equation to its inputs."""
    known = dict(zip((*jaxpr.constvars, *jaxpr.invars), arguments, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, JaxprLiteral) else known[atom]

    for equation in jaxpr.eqns:
        known.update(zip(equation.outvars, step(equation, [read(a) for a in equation.invars]), strict=True))
    return [read(a) for a in jaxpr.outvars]


def equations_in(params: dict[str, Any]) -> Iterator[Any]:
    """Yield every equation in the jaxprs among an equation's parameters, however deep."""
    for jaxpr in jaxprs_of(params):
        for equation in jaxpr.eqns:
            yield equation
            yield from equations_in(equation.params)


def jaxprs_of(params: dict[str, Any]) -> list[Any]:
    """Every jaxpr among an equation's parameters (closed ones opened)."""
    values = [v for p in params.values() for v in (p if isinstance(p, (tuple, list)) else (p,))]
    return [getattr(v, "jaxpr", v) for v in values if hasattr(v, "eqns")]


def names_in(jaxpr: Any) -> frozenset[str]:
    """Names of all primitives in a jaxpr, however deep."""
    if jaxpr not in _names_inside:
        _names_inside[jaxpr] = frozenset().union(*(primitive_names(e.primitive, e.params) for e in jaxpr.eqns))
    return _names_inside[jaxpr]
