"""What a program can be written from: one line of Python each, with the kinds and shapes it takes and gives.

Kinds: ``f`` floating point, ``i`` integer, ``b`` boolean, ``c`` complex, ``k`` key, ``q`` quantity of voltage.
Shapes are few and small, so that both sides compile little; wide ones, if wanted, fill vectors or just do not.
"""

from collections.abc import Callable
from dataclasses import dataclass

Shape = tuple[int, ...]
Shapes = Callable[..., Shape | None]
SHAPES: tuple[Shape, ...] = ((), (3,), (2, 3))  # by rank
WIDE_SHAPES: tuple[Shape, ...] = ((20,), (70,), (304,), (12, 12), (64, 10), (3, 70), (304, 3))


@dataclass(frozen=True, slots=True)
class Operation:
    """``code`` with ``{0}``, ``{1}`` for arguments of these kinds; ``shape`` is None where it does not take theirs."""

    code: str
    takes: str
    gives: str
    shape: Shapes

    @property
    def draws(self) -> bool:
        """Whether it is a draw, so that its value differs by lane."""
        return "R." in self.code


def same(*shapes: Shape) -> Shape | None:
    return shapes[0] if len(set(shapes)) == 1 else None


def broadcast(a: Shape, b: Shape) -> Shape | None:
    short, long = sorted((a, b), key=len)
    return long if long[len(long) - len(short) :] == short else None


def reduced(a: Shape) -> Shape | None:
    return a[:-1] if a else None


def vector(a: Shape) -> Shape | None:
    return a if a else None


def becomes(shape: Shape, rank: int) -> Shapes:
    return lambda a, *_: shape if a == SHAPES[rank] else None


def _rows(takes: str, gives: str, shape: Shapes, codes: str) -> list[Operation]:
    return [Operation(code.strip(), takes, gives, shape) for code in codes.strip().splitlines()]


# Of the same shape and, after a cast, dtype: what functions for jit, scan, cond, vmap are made from.
ELEMENTWISE = (
    "jnp.sin({0})",
    "jnp.tanh({0})",
    "jnp.exp(-jnp.abs({0}))",
    "jnp.log1p(jnp.abs({0}))",
    "jnp.sqrt(jnp.abs({0}) + 0.1)",
    "{0} * 0.3 - 65.0",
    "{0} + {0} * {0} * 1.7",
    "{0} / 3.0",
    "-{0}",
    "{0} ** 2",
    "jnp.clip({0}, -1.0, 1.0)",
    "jnp.where({0} > 0, {0}, 0.5)",
    "jax.nn.gelu({0})",
    "jax.nn.sigmoid({0})",
    "softened({0})",
    "scaled({0})",
    "jnp.floor({0})",
    "jax.lax.erf({0})",
)

CALLS = (
    "jax.jit({F})({0})",
    "jax.jit(jax.jit({F}))({0})",
    "{F}({0})",
    "brainstate.transform.jit({F})({0})",
    "jax.lax.cond(jnp.sum({0}) > 0, {F}, {G}, {0})",
    "jax.lax.cond(True, {F}, {G}, {0})",
    "brainstate.transform.cond(jnp.sum({0}) > 0, {F}, {G}, {0})",
    "jax.lax.switch(jnp.int32(1), [{F}, {G}], {0})",
    "jax.lax.switch(jnp.int32(jnp.sum({0})) % 2, [{F}, {G}], {0})",
    "jax.lax.fori_loop(0, 3, lambda i, v: {F}(v), {0})",
    "jax.lax.fori_loop(0, 3, lambda i, v: {F}(v) * i, {0}).astype({0}.dtype)",
    "jax.lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, {F}(s[1])), (0, {0}))[1]",
    "jax.lax.while_loop(lambda v: jnp.sum(jnp.abs(v)) > 1.0, lambda v: v * 0.5, {F}({0}))",
    "jax.checkpoint({F})({0})",
    "jax.jvp({F}, ({0},), (jnp.ones_like({0}),))[1]",
)
VECTOR_CALLS = (
    "jax.vmap({F})({0})",
    "jax.vmap(jax.jit({F}))({0})",
    "jax.lax.scan(lambda c, r: ({F}(c + r), {G}(r)), jnp.zeros_like({0}[0]), {0})[1]",
    "jax.lax.scan(lambda c, r: ({F}(c + r),) * 2, {0}[0], {0}, reverse=True, unroll=2)[1]",
    "brainstate.transform.for_loop({F}, {0})",
    "jax.lax.map({F}, {0})",
)
PAIR_CALLS = (  # of two values of one shape
    "jax.jit(lambda v, w: {F}(v) + {G}(w))({0}, {1})",
    "jax.lax.cond(jnp.sum({0}) > 0, lambda v, w: {F}(v), lambda v, w: {G}(w).astype(v.dtype), {0}, {1})",
    "jax.lax.fori_loop(0, 2, lambda i, v: ({F}(v) + {1}).astype(v.dtype), {0})",
)

OPERATIONS = (
    *_rows("f", "f", same, "\n".join(ELEMENTWISE)),
    *_rows(
        "f",
        "f",
        same,
        """
        jnp.asarray({0})
        jax.lax.stop_gradient({0})
        jax.grad(lambda v: jnp.sum(jnp.sin(v)))({0}.astype(jnp.float32))
        {0}.astype(jnp.float16)
        {0}.astype(jnp.bfloat16)
        {0}.astype(jnp.float32)
        {0}.astype(jnp.float8_e4m3fn).astype(jnp.float32)
        jax.lax.reduce_precision({0}, 5, 4)
        jnp.nextafter({0}.astype(jnp.float32), jnp.float32(9.0))
        jnp.round({0}, 1)
        jnp.nan_to_num(jnp.log({0}))
        jax.nn.relu({0})
        jax.nn.silu({0})
        jax.scipy.special.gammaln(jnp.abs({0}) + 0.5)
        R.normal({0}, 1.0, size={0}.shape)
        R.uniform({0}, {0} + 1.0, size={0}.shape)
        jax.pure_callback(np.sin, jax.ShapeDtypeStruct({0}.shape, {0}.dtype), {0}, vmap_method='sequential')
        """,
    ),
    *_rows(
        "ff",
        "f",
        broadcast,
        """
        {0} + {1}
        {0} * {1}
        {0} - {1}
        jnp.maximum({0}, {1})
        jnp.arctan2({0}, {1})
        jnp.hypot({0}, {1})
        jnp.where({0} > {1}, {0}, {1})
        """,
    ),
    *_rows("ff", "b", broadcast, "{0} < {1}\njnp.isclose({0}, {1})"),
    *_rows(
        "bff",
        "f",
        same,
        """
        jnp.where({0}, {1}, {2})
        jax.lax.select({0}, {1}.astype(jnp.float32), {2}.astype(jnp.float32))
        """,
    ),
    *_rows(
        "f",
        "f",
        reduced,
        """
        jnp.sum({0}, axis=-1)
        jnp.mean({0}, axis=-1)
        jnp.var({0}, axis=-1)
        jnp.max({0}, axis=-1)
        jnp.prod({0}, axis=-1)
        jnp.median({0}, axis=-1)
        jax.nn.logsumexp({0}, axis=-1)
        """,
    ),
    *_rows("f", "i", reduced, "jnp.argmax({0}, axis=-1)\njnp.sum({0} > 0, axis=-1)"),
    *_rows(
        "f",
        "f",
        vector,
        """
        jnp.sort({0}, axis=-1)
        jnp.cumsum({0}, axis=-1)
        jnp.cumprod({0}, axis=-1)
        jax.lax.cummax({0}, axis=0)
        jax.lax.associative_scan(jnp.add, {0})
        jnp.flip({0}, axis=-1)
        jnp.roll({0}, 1, axis=-1)
        {0}.at[0].set(1.5)
        {0}.at[-1].add(0.5)
        {0}.at[0].multiply(2.0)
        {0}.at[jnp.array([0, 0])].add(0.25)
        jax.nn.softmax({0}, axis=-1)
        jnp.take_along_axis({0}, jnp.argsort({0}, axis=-1), axis=-1)
        {0}[jnp.argsort(jnp.arange({0}.shape[0])[::-1])]
        R.permutation({0})
        {0} - jnp.mean({0}, axis=-1, keepdims=True)
        {0} / jnp.linalg.norm({0}.astype(jnp.float32))
        """,
    ),
    *_rows("f", "i", vector, "jnp.argsort({0}, axis=-1)\njnp.searchsorted(jnp.arange(-1.0, 2.0), {0})"),
    *_rows(
        "f",
        "f",
        becomes((2, 3), 1),
        """
        jnp.stack([{0}, 2.0 * {0}])
        jnp.outer(jnp.arange(2.0), {0})
        jnp.broadcast_to({0}, (2, 3))
        jnp.pad({0}[None], ((0, 1), (0, 0)))
        """,
    ),
    *_rows(
        "f",
        "f",
        becomes((3,), 2),
        """
        {0}[0]
        {0}[1, ::-1]
        {0}.T @ jnp.ones(2)
        jnp.take({0}, 1, axis=0)
        jnp.sum({0}, axis=0)
        jax.lax.dynamic_slice({0}, (1, 0), (1, 3))[0]
        jax.ops.segment_sum({0}, jnp.array([0, 0]), 1)[0]
        """,
    ),
    *_rows(
        "f",
        "f",
        becomes((2, 3), 2),
        """
        ({0} @ {0}.T) @ {0}
        {0}.T.reshape(2, 3)
        jnp.concatenate([{0}[1:], {0}[:1]])
        jnp.triu({0})
        jnp.linalg.solve({0} @ {0}.T + 2.0 * jnp.eye(2), {0})
        jnp.linalg.cholesky({0} @ {0}.T + 2.0 * jnp.eye(2)) @ {0}
        jnp.linalg.qr({0})[1]
        jnp.einsum('ij,kj->ki', {0}, jnp.ones((2, 3))) @ jnp.ones((2, 3))
        """,
    ),
    *_rows("f", "f", becomes((), 1), "jnp.dot({0}, {0})\n{0}[1]\njnp.linalg.norm({0})"),
    *_rows("f", "f", becomes((3,), 1), "jnp.convolve({0}, jnp.array([0.5, 0.5]), 'same')\njnp.fft.fft({0}).real"),
    *_rows("fi", "f", lambda a, b: () if a == (3,) and b == () else None, "{0}[{1} % 3]\n{0}[{1}]"),
    *_rows("fi", "f", lambda a, b: a if a == (3,) and b == () else None, "{0}.at[{1} % 3].set(0.5)"),
    *_rows(
        "f",
        "f",
        becomes((3,), 0),
        """
        jnp.full((3,), {0})
        {0} * jnp.arange(3.0)
        {0} * np.array([1.0, 2.0, 3.0], np.float32)
        """,
    ),
    *_rows("f", "i", same, "\n".join(f"({{0}} * 10).astype(jnp.{t})" for t in ("int8", "int16", "int32", "uint8"))),
    *_rows(
        "f",
        "c",
        same,
        """
        {0} + 1j
        jnp.exp(1j * {0})
        jax.lax.complex({0}.astype(jnp.float32), jnp.ones_like({0}, jnp.float32))
        """,
    ),
    *_rows("c", "f", same, "jnp.abs({0})\n{0}.real\njnp.angle({0})"),
    *_rows(
        "c", "c", same, "{0} * {0}\njnp.conj({0})\n{0} * {0} * {0}\n{0} * jnp.conj({0}) + {0}\njnp.square({0}) - {0}"
    ),
    *_rows(
        "i",
        "i",
        same,
        """
        {0} + 1
        {0} // 2
        {0} % 3
        -{0}
        {0} ^ 5
        {0} << 1
        jnp.abs({0})
        jax.lax.population_count({0})
        {0}.astype(jnp.uint8)
        {0}.astype(jnp.uint32)
        {0}.astype(jnp.int8)
        {0}.astype(jnp.int16)
        {0}.astype(jnp.int4).astype(jnp.int32)
        """,
    ),
    *_rows("i", "i", reduced, "jnp.sum({0}, axis=-1)\njnp.prod({0}, axis=-1)\njnp.min({0}, axis=-1)"),
    *_rows("i", "i", becomes((3,), 1), "jnp.bincount(jnp.abs({0}) % 3, length=3)\njnp.cumsum({0})\njnp.sort({0})"),
    *_rows(
        "i",
        "f",
        same,
        """
        {0} * 0.5
        {0}.astype(jnp.float32)
        jnp.sqrt(jnp.abs({0}))
        jnp.arange(7.0)[{0} % 7]
        jnp.take(jnp.arange(5.0) ** 2, {0}, mode='clip')
        """,
    ),
    *_rows("i", "b", same, "{0} > 1\n({0} & 1) == 0"),
    *_rows("ii", "i", broadcast, "{0} + {1}\n{0} * {1}\njnp.minimum({0}, {1})"),
    *_rows("b", "b", same, "~{0}\njnp.logical_xor({0}, True)"),
    *_rows("b", "b", reduced, "jnp.any({0}, axis=-1)\njnp.all({0}, axis=-1)"),
    *_rows("b", "i", same, "{0}.astype(jnp.int32)\n{0} * 3"),
    *_rows("f", "q", same, "{0} * u.mV\n({0} - 65.0) * u.mV\n{0} * u.nA * (2.0 * u.Mohm)"),
    *_rows("q", "q", same, "{0} * 2.0\n{0} + 1.0 * u.mV\nu.math.abs({0})\n({0} * u.ms) / (3.0 * u.ms)"),
    *_rows("q", "q", reduced, "u.math.sum({0}, axis=-1)\nu.math.max({0}, axis=-1)"),
    *_rows(
        "q", "f", same, "({0} / u.mV)\n{0}.to_decimal(u.volt)\nu.get_mantissa({0})\nu.math.exp({0} / (25.0 * u.mV))"
    ),
    *_rows("qq", "b", same, "{0} > {1}"),
    *_rows("qq", "q", broadcast, "{0} + {1}\nu.math.where({0} > {1}, {0}, {1})"),
    *_rows(
        "k",
        "k",
        lambda a: (),
        """
        jax.random.split({0})[0]
        jax.random.split({0}, 3)[2]
        jax.random.fold_in({0}, 5)
        jax.random.clone({0})
        """,
    ),
    *_rows("ki", "k", lambda a, b: () if b == () else None, "jax.random.fold_in({0}, {1})"),
)

# Of what all lanes share.
SHARED = (
    ("jnp.arange(3.0)", "f", (3,)),
    ("jnp.ones((2, 3)) * 0.1", "f", (2, 3)),
    ("jnp.asarray(1.0) * 2", "f", ()),
    ("jnp.float32(0.25)", "f", ()),
    ("jnp.arange(3)", "i", (3,)),
    ("jnp.int8(3)", "i", ()),
    ("jnp.asarray(2)", "i", ()),
    ("jnp.linspace(0.0, 1.0, 3)", "f", (3,)),
    ("jnp.asarray(np.arange(6.0).reshape(2, 3))", "f", (2, 3)),
    ("jnp.asarray(ON_HOST)", "f", (3,)),
    ("ON_DEVICE * 1.5", "f", (2, 3)),
    ("jnp.array([True, False, True])", "b", (3,)),
    ("jax.random.normal(jax.random.key(3), (3,))", "f", (3,)),
    ("jax.random.key(5)", "k", ()),
    ("R.RandomState(5).normal(size=(3,))", "f", (3,)),
    ("jnp.asarray(np.random.RandomState(5).rand(3))", "f", (3,)),
    ("jnp.float32(float(jnp.sum(jnp.arange(3.0))))", "f", ()),
)

# Python and NumPy values, and values that no operation takes.
VALUES = (
    "3",
    "0.5",
    "True",
    "1j",
    "None",
    "np.float32(2)",
    "np.arange(3)",
    "np.arange(3.0)",
    "np.arange(3) == 1",
    "jnp.array(1.0)",
    "jnp.float32(2)",
    "jnp.zeros((0,))",
    "3.0 * u.mV",
    "jax.random.key(4)",
)
