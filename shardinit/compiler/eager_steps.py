"""Equations evaluated in the steps of eager JAX: what it compiles alone rounds alone, also in one program.

Eager brainstate maps the init with ``jax.vmap``, whose rules turn each primitive into others (a ``cond``
that differs by lane into both branches and a select), and then compiles each of *those* alone. So the steps
are only known below ``vmap``: ``EagerSteps`` is the trace there.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from shardinit.backend.private_jax import Trace, bind, set_current_trace, trace_ctx
from shardinit.compiler.opened_loops import evaluate_opened
from shardinit.lane.equations import is_key, jaxprs_of, name_of, primitive_names
from shardinit.lane.key_rows import key_words
from shardinit.lane.key_rule import key_impl
from shardinit.lane.primitives import MOVES, OPENED, OPENED_WITHOUT_JIT
from shardinit.lane.rounding import rounds_by_place

DIVIDED = 1 << 16  # numbers of zeros from here on are used once: no step has as many arguments


def in_eager_steps(function: Callable[..., Any], apart: bool = False) -> Callable[..., Any]:
    """Evaluate a function in the steps of eager JAX; its first argument becomes a counter, which is never negative."""

    def run(counter: Any, *arguments: Any) -> Any:
        with set_current_trace(EagerSteps(trace_ctx.trace, counter, apart)):
            return function(*arguments)

    return run


class EagerSteps(Trace):
    """Adds each primitive to the program around it as a step of its own.

    Parameters
    ----------
    parent
        The trace of the program.
    counter
        A number that is never negative, but XLA cannot know.
    apart
        Whether steps whose last bits can depend on the loop around them get a loop of their own.
    """

    __slots__ = ("apart", "counter", "made", "parent", "zeros")

    def __init__(self, parent: Any, counter: Any, apart: bool = False) -> None:
        super().__init__()
        self.parent = parent
        self.counter = counter
        self.apart = apart
        self.zeros: dict[int, Any] = {}
        self.made: dict[int, tuple[Any, bool]] = {}  # id -> a value made here, and whether it was computed or moved

    def process_primitive(self, primitive: Any, arguments: Any, params: Any, /) -> Any:
        name = name_of(primitive)
        if name in OPENED:
            with set_current_trace(self):
                return primitive.impl(*arguments, **params)
        if name in OPENED_WITHOUT_JIT and getattr(jax.config, "jax_disable_jit", False):
            return self._open_loops(partial(primitive.impl, **params), arguments)
        moves = name in MOVES
        with set_current_trace(self.parent):
            inputs = arguments if moves else self._read(arguments, primitive, params)
            values = self._apart(primitive, params, inputs) if self.apart else bind(primitive, params, inputs)
        computed = not moves or any(self._is_computed(a) for a in arguments)
        self.made.update((id(v), (v, computed)) for v in values)
        return values if primitive.multiple_results else values[0]

    def _apart(self, primitive: Any, params: dict[str, Any], inputs: list[Any]) -> list[Any]:
        """Compute a step in the branch of a conditional, which XLA compiles by itself: nothing is fused with it."""

        def step(*arguments: Any) -> Any:
            return bind(primitive, params, list(arguments))

        avals = jax.eval_shape(step, *inputs)
        if not rounds_by_place(primitive, params, avals):
            return step(*inputs)
        known = lax.ge(self.counter, jnp.int32(0))
        values = lax.cond(known, step, lambda *_: [_blank(aval) for aval in avals], *inputs)
        return _tied(values, known) if jaxprs_of(params) else values

    def step(self, equation: Any, inputs: Sequence[Any]) -> list[Any]:
        """Add an equation as a step."""
        with set_current_trace(self):
            return bind(equation.primitive, equation.params, inputs)

    def _open_loops(self, function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
        with jax.disable_jit(False), set_current_trace(self.parent):
            closed = jax.make_jaxpr(function)(*arguments)
            steps = lambda: EagerSteps(trace_ctx.trace, self.counter).step  # noqa: E731
            (value,) = evaluate_opened(closed.jaxpr, closed.consts, arguments, steps)
        self.made[id(value)] = (value, True)
        return value

    def process_call(self, call_primitive: Any, f: Any, arguments: Any, params: Any, /) -> Any:
        return self._open(f, arguments)

    def process_custom_jvp_call(self, primitive: Any, fun: Any, jvp: Any, arguments: Any, /, **_: Any) -> Any:
        return self._open(fun, arguments)

    def process_custom_vjp_call(self, primitive: Any, fun: Any, fwd: Any, bwd: Any, arguments: Any, /, **_: Any) -> Any:
        return self._open(fun, arguments)

    def stage_value(self, value: Any) -> Any:
        with set_current_trace(self.parent):
            return self.parent.stage_value(value)

    def _open(self, function: Any, arguments: Any) -> Any:
        with set_current_trace(self):
            return function.call_wrapped(*arguments)

    def _is_computed(self, value: Any) -> bool:
        return self.made.get(id(value), (None, False))[1]

    def _read(self, arguments: Any, primitive: Any, params: dict[str, Any]) -> list[Any]:
        """Read the arguments of a step, as from memory.

        What a step computes inside (a jaxpr that it carries) must not see what an argument is made of, nor that
        two arguments are made of the same: ``jit(cross)(x, x)`` is zero to a compiler that sees it. Nor must XLA see
        that two steps divide by the same number: it multiplies by the inverse where there is one division alone.
        """
        carries_code = bool(jaxprs_of(params))
        divides = carries_code and "div" in primitive_names(primitive, params)
        inputs = []
        for at, value in enumerate(arguments):
            if divides and value.ndim == 0 and _rounds(value):
                inputs.append(opaque(value, self._zero(DIVIDED + len(self.zeros))))
            elif carries_code and at and (id(value) in self.made or any(value is a for a in arguments[:at])):
                inputs.append(opaque(value, self._zero(at)))
            elif self._is_computed(value) and (carries_code or _rounds(value)):
                inputs.append(opaque(value, self._zero(0)))
            else:
                inputs.append(value)
        return inputs

    def _zero(self, number: int) -> Any:
        """A zero of its own for each number, which XLA can neither know nor tell to be equal."""
        if number not in self.zeros:
            shifted = lax.add(self.counter, jnp.int32(number))
            self.zeros[number] = lax.shift_right_logical(shifted, jnp.int32(31)).astype(jnp.uint32)
        return self.zeros[number]


def _tied(values: list[Any], known: Any) -> list[Any]:
    """Keep XLA from leaving out a value that nothing needs: what is computed beside another decides its last bits.

    ``known`` is true, which XLA does not know.
    """
    tied = list(values)
    floats = [at for at, v in enumerate(values) if not is_key(jax.typeof(v)) and _rounds(v) and v.size]
    for at, before in zip(floats, floats[-1:] + floats[:-1], strict=True):
        if at != before:
            other = jnp.real(values[before].reshape(-1)[0]).astype(values[at].dtype)
            tied[at] = lax.select(known, values[at], jnp.broadcast_to(other, values[at].shape))
    return tied


def _blank(aval: Any) -> Any:
    if not is_key(aval):
        return jnp.zeros(aval.shape, aval.dtype)
    words = jnp.zeros((*aval.shape, key_words(aval.dtype)), jnp.uint32)
    return jax.random.wrap_key_data(words, impl=key_impl(aval.dtype))


def _rounds(value: Any) -> bool:
    return jnp.issubdtype(value.dtype, jnp.inexact)


def opaque(value: Any, zero: Any) -> Any:
    """Keep XLA from computing across the boundary between two equations.

    Eager brainstate runs equation by equation, each compiled alone. In one program XLA fuses them, and
    its CPU and GPU backends contract the multiply of one with the add of the next into an FMA, which
    rounds once instead of twice (``lax.optimization_barrier`` does not help: it is dropped before XLA
    fuses). An exclusive-or with a zero that only the caller knows stops it, and costs no memory.
    """
    dtype = getattr(value, "dtype", None)
    if dtype is None or is_key(jax.typeof(value)) or dtype == jax.dtypes.float0:
        return value
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return lax.complex(opaque(value.real, zero), opaque(value.imag, zero))
    if dtype == jnp.bool_:
        return value ^ (zero != 0)
    if jnp.issubdtype(dtype, jnp.integer):
        return value ^ zero.astype(dtype)
    bits = jnp.dtype(f"uint{jax.dtypes.itemsize_bits(dtype)}")
    return lax.bitcast_convert_type(lax.bitcast_convert_type(value, bits) ^ zero.astype(bits), dtype)
