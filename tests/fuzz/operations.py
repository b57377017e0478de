"""What a program can be written from: one line of Python each, with the kinds and shapes it takes and gives.

Kinds: ``f`` floating point, ``i`` integer, ``b`` boolean, ``c`` complex, ``k`` key, ``q`` quantity in mV.
Shapes are few and small, so that both sides compile little.
"""

from collections.abc import Callable
from dataclasses import dataclass

Shape = tuple[int, ...]
SHAPES: tuple[Shape, ...] = ((), (3,), (2, 3))


@dataclass(frozen=True, slots=True)
class Operation:
    """``code`` with ``{0}``, ``{1}`` for arguments of these kinds, ``{S}`` for a shape."""

    code: str
    takes: str
    gives: str
    shape: Callable[..., Shape | None]


def _same(*shapes: Shape) -> Shape | None:
    return shapes[0] if len(set(shapes)) == 1 else None


def _broadcast(a: Shape, b: Shape) -> Shape | None:
    short, long = sorted((a, b), key=len)
    return long if long[len(long) - len(short) :] == short else None


def _reduced(a: Shape) -> Shape | None:
    return a[:-1] if a else None


def _vector(a: Shape) -> Shape | None:
    return a if a else None


def _matrix(a: Shape) -> Shape | None:
    return a if len(a) == 2 else None


def _becomes(shape: Shape, rank: int) -> Callable[..., Shape | None]:
    return lambda a, *_: shape if len(a) == rank else None


def _rows(takes: str, gives: str, shape: Callable[..., Shape | None], *codes: str) -> list[Operation]:
    return [Operation(code, takes, gives, shape) for code in codes]


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
    "jnp.floor({0})",
    "jax.lax.erf({0})",
)

CALLS = (
    "jax.jit({F})({0})",
    "{F}({0})",
    "jax.lax.cond(jnp.sum({0}) > 0, {F}, {G}, {0})",
    "jax.lax.switch(jnp.int32(1), [{F}, {G}], {0})",
    "jax.lax.fori_loop(0, 3, lambda i, v: {F}(v), {0})",
    "jax.lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, {F}(s[1])), (0, {0}))[1]",
    "jax.checkpoint({F})({0})",
)
VECTOR_CALLS = (
    "jax.vmap({F})({0})",
    "jax.lax.scan(lambda c, r: ({F}(c + r), {G}(r)), jnp.zeros_like({0}[0]), {0})[1]",
    "brainstate.transform.for_loop({F}, {0})",
    "jax.lax.map({F}, {0})",
)

OPERATIONS = (
    *_rows("f", "f", _same, *ELEMENTWISE),
    *_rows(
        "ff", "f", _broadcast, "{0} + {1}", "{0} * {1}", "{0} - {1}", "jnp.maximum({0}, {1})", "jnp.arctan2({0}, {1})"
    ),
    *_rows("ff", "b", _broadcast, "{0} < {1}"),
    *_rows(
        "bff",
        "f",
        _same,
        "jnp.where({0}, {1}, {2})",
        "jax.lax.select({0}, {1}.astype(jnp.float32), {2}.astype(jnp.float32))",
    ),
    *_rows(
        "f",
        "f",
        _reduced,
        "jnp.sum({0}, axis=-1)",
        "jnp.mean({0}, axis=-1)",
        "jnp.max({0}, axis=-1)",
        "jnp.prod({0}, axis=-1)",
    ),
    *_rows("f", "i", _reduced, "jnp.argmax({0}, axis=-1)"),
    *_rows(
        "f",
        "f",
        _vector,
        "jnp.sort({0}, axis=-1)",
        "jnp.cumsum({0}, axis=-1)",
        "jnp.flip({0}, axis=-1)",
        "jnp.roll({0}, 1, axis=-1)",
    ),
    *_rows(
        "f",
        "f",
        _vector,
        "{0}.at[0].set(1.5)",
        "{0}.at[-1].add(0.5)",
        "{0}.at[0].multiply(2.0)",
        "jax.nn.softmax({0}, axis=-1)",
    ),
    *_rows(
        "f",
        "f",
        _becomes((2, 3), 1),
        "jnp.stack([{0}, 2.0 * {0}])",
        "jnp.outer(jnp.arange(2.0), {0})",
        "jnp.broadcast_to({0}, (2, 3))",
    ),
    *_rows("f", "f", _becomes((3,), 2), "{0}[0]", "{0}[1, ::-1]", "{0}.T @ jnp.ones(2)", "jnp.take({0}, 1, axis=0)"),
    *_rows(
        "f",
        "f",
        _becomes((2, 3), 2),
        "({0} @ {0}.T) @ {0}",
        "{0}.T.reshape(2, 3)",
        "jnp.concatenate([{0}[1:], {0}[:1]])",
    ),
    *_rows("f", "f", _becomes((), 1), "jnp.dot({0}, {0})", "{0}[1]", "jnp.linalg.norm({0})"),
    *_rows(
        "f",
        "f",
        _becomes((3,), 0),
        "jnp.full((3,), {0})",
        "{0} * jnp.arange(3.0)",
        "{0} * np.array([1.0, 2.0, 3.0], np.float32)",
    ),
    *_rows("f", "f", _matrix, "jnp.linalg.cholesky({0} @ {0}.T + 2.0 * jnp.eye(2)) @ {0}", "jnp.linalg.qr({0})[1]"),
    *_rows("f", "f", _same, *(f"{{0}}.astype(jnp.{t})" for t in ("float16", "bfloat16", "float32"))),
    *_rows("f", "i", _same, *(f"({{0}} * 10).astype(jnp.{t})" for t in ("int8", "int16", "int32"))),
    *_rows(
        "f",
        "c",
        _same,
        "{0} + 1j",
        "jnp.exp(1j * {0})",
        "jax.lax.complex({0}.astype(jnp.float32), jnp.ones_like({0}, jnp.float32))",
    ),
    *_rows("c", "f", _same, "jnp.abs({0})", "{0}.real", "jnp.angle({0})"),
    *_rows("c", "c", _same, "{0} * {0}", "jnp.conj({0})"),
    *_rows("i", "i", _same, "{0} + 1", "{0} // 2", "{0} % 3", "-{0}", "{0} ^ 5", "{0} << 1", "jnp.abs({0})"),
    *_rows("i", "i", _same, *(f"{{0}}.astype(jnp.{t})" for t in ("uint8", "uint32", "int8", "int16"))),
    *_rows("i", "f", _same, "{0} * 0.5", "{0}.astype(jnp.float32)", "jnp.sqrt(jnp.abs({0}))"),
    *_rows("i", "f", _same, "jnp.arange(7.0)[{0} % 7]", "jnp.take(jnp.arange(5.0) ** 2, {0}, mode='clip')"),
    *_rows("i", "b", _same, "{0} > 1", "({0} & 1) == 0"),
    *_rows("ii", "i", _broadcast, "{0} + {1}", "{0} * {1}", "jnp.minimum({0}, {1})"),
    *_rows("b", "b", _same, "~{0}", "jnp.logical_xor({0}, True)"),
    *_rows("b", "b", _reduced, "jnp.any({0}, axis=-1)", "jnp.all({0}, axis=-1)"),
    *_rows("b", "i", _same, "{0}.astype(jnp.int32)", "{0} * 3"),
    *_rows("f", "q", _same, "{0} * u.mV", "({0} - 65.0) * u.mV"),
    *_rows("q", "q", _same, "{0} * 2.0", "{0} + 1.0 * u.mV", "u.math.abs({0})"),
    *_rows("q", "f", _same, "({0} / u.mV)", "{0}.to_decimal(u.volt)", "u.get_mantissa({0})"),
    *_rows("qq", "b", _same, "{0} > {1}"),
    *_rows(
        "k", "k", lambda a: (), "jax.random.split({0})[0]", "jax.random.split({0}, 3)[2]", "jax.random.fold_in({0}, 5)"
    ),
    *_rows("f", "f", _same, "({0} if {0}.ndim < 9 else None)", "jnp.asarray({0})", "jax.lax.stop_gradient({0})"),
    *_rows("f", "f", _same, "jax.grad(lambda v: jnp.sum(jnp.sin(v)))({0}.astype(jnp.float32))"),
)

# Of what all lanes share.
SHARED = (
    ("jnp.arange(3.0)", "f", (3,)),
    ("jnp.ones((2, 3)) * 0.1", "f", (2, 3)),
    ("jnp.asarray(1.0) * 2", "f", ()),
    ("jnp.arange(3)", "i", (3,)),
    ("jnp.int8(3)", "i", ()),
    ("jnp.linspace(0.0, 1.0, 3)", "f", (3,)),
    ("jnp.asarray(np.arange(6.0).reshape(2, 3))", "f", (2, 3)),
    ("jnp.array([True, False, True])", "b", (3,)),
    ("jax.random.normal(jax.random.key(3), (3,))", "f", (3,)),
    ("jax.random.key(5)", "k", ()),
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
    "jnp.array(1.0)",
    "jnp.float32(2)",
)

FLOAT_DRAWS = (
    *("normal(size={S})", "uniform(-1.0, 2.0, size={S})", "truncated_normal(-2.0, 2.0, size={S})", "rand(*{S})"),
    *("exponential(2.0, size={S})", "gumbel(size={S})", "laplace(size={S})", "logistic(size={S})", "randn(*{S})"),
    *("lognormal(0.0, 1.0, size={S})", "rayleigh(1.5, size={S})", "standard_cauchy(size={S})", "pareto(3.0, size={S})"),
    *(
        "weibull(2.0, size={S})",
        "weibull_min(2.0, 1.5, size={S})",
        "maxwell(size={S})",
        "triangular(-1.0, 0.0, 2.0, size={S})",
    ),
    *("gamma(2.0, size={S})", "beta(2.0, 3.0, size={S})", "chisquare(3.0, size={S})", "standard_t(4.0, size={S})"),
    *("standard_gamma(2.0, size={S})", "loggamma(2.0, size={S})", "f(3.0, 5.0, size={S})", "power(2.0, size={S})"),
    *("wald(1.0, 2.0, size={S})", "vonmises(0.0, 1.0, size={S})", "noncentral_chisquare(3.0, 1.0, size={S})"),
    *(
        "noncentral_f(3.0, 5.0, 1.0, size={S})",
        "t(4.0, size={S})",
        "standard_exponential(size={S})",
        "random(size={S})",
    ),
)
INTEGER_DRAWS = (
    *(
        "randint(0, 100, size={S})",
        "bernoulli(0.3, size={S}).astype(int)",
        "poisson(3.0, size={S})",
        "geometric(0.3, size={S})",
    ),
    *(
        "choice(jnp.arange(10), size={S})",
        "binomial(5, 0.4, size={S})",
        "zipf(3.0, size={S})",
        "logseries(0.5, size={S})",
    ),
    *("hypergeometric(5, 6, 4, size={S})", "negative_binomial(5, 0.5, size={S})", "random_integers(1, 6, size={S})"),
)
VECTOR_DRAWS = (
    *(("dirichlet(jnp.ones(3), size=(2,))", "f", (2, 3)), ("multivariate_normal(jnp.zeros(3), jnp.eye(3))", "f", (3,))),
    *(("categorical(jnp.zeros((3, 4)))", "i", (3,)), ("permutation(3)", "i", (3,)), ("orthogonal(3)[0]", "f", (3,))),
    *(
        ("multinomial(5, jnp.ones(3) / 3)", "i", (3,)),
        ("shuffle(jnp.arange(3.0))", "f", (3,)),
        ("split_key()", "k", ()),
    ),
)
KEYED = (
    *(
        "normal({0}, {S})",
        "uniform({0}, {S})",
        "normal({0}, {S}, jnp.bfloat16)",
        "truncated_normal({0}, -1.0, 1.0, {S})",
    ),
    *(
        "cauchy({0}, {S})",
        "gumbel({0}, {S})",
        "laplace({0}, {S})",
        "rayleigh({0}, 1.5, {S})",
        "beta({0}, 2.0, 3.0, {S})",
    ),
    *(
        "gamma({0}, 2.0, {S})",
        "t({0}, 4.0, {S})",
        "chisquare({0}, 3.0, {S})",
        "maxwell({0}, {S})",
        "logistic({0}, {S})",
    ),
    *("double_sided_maxwell({0}, 0.0, 1.0, {S})", "generalized_normal({0}, 1.5, {S})", "pareto({0}, 3.0, {S})"),
    *("weibull_min({0}, 1.0, 2.0, {S})", "lognormal({0}, 1.0, {S})", "triangular({0}, 0.0, 0.5, 1.0, {S})"),
    *("wald({0}, 1.0, {S})", "f({0}, 3.0, 5.0, {S})", "loggamma({0}, 2.0, {S})", "exponential({0}, {S})"),
)
KEYED_INTEGERS = (
    *("bits({0}, {S})", "randint({0}, {S}, 0, 9)", "bernoulli({0}, 0.4, {S}).astype(int)", "poisson({0}, 3.0, {S})"),
    *(
        "rademacher({0}, {S})",
        "geometric({0}, 0.3, {S})",
        "choice({0}, 7, {S})",
        "binomial({0}, 5.0, 0.5, {S}).astype(int)",
    ),
)
KEYED_VECTORS = (
    *(("permutation({0}, 3)", "i", (3,)), ("ball({0}, 3)", "f", (3,)), ("orthogonal({0}, 3)[1]", "f", (3,))),
    *(("dirichlet({0}, jnp.ones(3))", "f", (3,)), ("categorical({0}, jnp.zeros((3, 4)))", "i", (3,))),
    *(
        ("multivariate_normal({0}, jnp.zeros(3), jnp.eye(3))", "f", (3,)),
        ("choice({0}, jnp.arange(9.0), (3,), False)", "f", (3,)),
    ),
)
