"""Every sampler of ``brainstate.random``, and those of ``jax.random``: a line of Python each. ``{S}`` is a shape."""


def _lines(text: str) -> tuple[str, ...]:
    return tuple(text.strip().splitlines())


FLOATS = _lines("""
R.normal(size={S})
R.normal(0.5, 2.0, size={S}, dtype=jnp.float16)
R.normal(size={S}, dtype=jnp.bfloat16)
R.standard_normal(size={S})
R.randn(*{S})
R.uniform(-1.0, 2.0, size={S})
R.rand(*{S})
R.random(size={S})
R.random_sample(size={S})
R.ranf(size={S})
R.sample(size={S})
R.truncated_normal(-2.0, 2.0, size={S})
R.exponential(2.0, size={S})
R.standard_exponential(size={S})
R.gumbel(size={S})
R.laplace(size={S})
R.logistic(size={S})
R.lognormal(0.0, 1.0, size={S})
R.rayleigh(1.5, size={S})
R.standard_cauchy(size={S})
R.pareto(3.0, size={S})
R.power(2.0, size={S})
R.weibull(2.0, size={S})
R.weibull_min(2.0, 1.5, size={S})
R.maxwell(size={S})
R.triangular(-1.0, 0.0, 2.0, size={S})
R.wald(1.0, 2.0, size={S})
""")
SLOW_FLOATS = _lines("""
R.gamma(2.0, size={S})
R.standard_gamma(2.0, size={S})
R.loggamma(2.0, size={S})
R.beta(2.0, 3.0, size={S})
R.chisquare(3.0, size={S})
R.f(3.0, 5.0, size={S})
R.t(4.0, size={S})
R.standard_t(4.0, size={S})
R.vonmises(0.0, 1.0, size={S})
R.noncentral_chisquare(3.0, 1.0, size={S})
R.noncentral_f(3.0, 5.0, 1.0, size={S})
""")
INTEGERS = _lines("""
R.randint(0, 100, size={S})
R.randint(0, 100, size={S}, dtype=jnp.int8)
R.random_integers(1, 6, size={S})
R.bernoulli(0.3, size={S}).astype(int)
R.poisson(3.0, size={S})
R.geometric(0.3, size={S})
R.choice(jnp.arange(10), size={S})
R.logseries(0.5, size={S})
""")
SLOW_INTEGERS = _lines("""
R.binomial(5, 0.4, size={S})
R.negative_binomial(5, 0.5, size={S})
R.hypergeometric(5, 6, 4, size={S})
R.zipf(3.0, size={S})
""")
BOOLEANS = _lines("""
R.bernoulli(0.3, size={S})
R.uniform(size={S}) < 0.5
""")

# Code, kind, shape.
OTHERS = (
    ("R.multivariate_normal(jnp.zeros(3), jnp.eye(3))", "f", (3,)),
    ("R.orthogonal(3)[0]", "f", (3,)),
    ("R.shuffle(jnp.arange(3.0))", "f", (3,)),
    ("R.categorical(jnp.zeros((3, 4)))", "i", (3,)),
    ("R.permutation(3)", "i", (3,)),
    ("R.multinomial(5, jnp.ones(3) / 3)", "i", (3,)),
    ("R.split_key()", "k", ()),
    ("R.split_keys(3)[1]", "k", ()),
    ("R.get_key()", "k", ()),
)
SLOW_OTHERS = (("R.dirichlet(jnp.ones(3), size=(2,))", "f", (2, 3)),)

# Of a key ``{0}``.
KEYED = _lines("""
jax.random.normal({0}, {S})
jax.random.normal({0}, {S}, jnp.bfloat16)
jax.random.uniform({0}, {S})
jax.random.uniform({0}, {S}, jnp.float16, -1.0, 2.0)
jax.random.truncated_normal({0}, -1.0, 1.0, {S})
jax.random.cauchy({0}, {S})
jax.random.gumbel({0}, {S})
jax.random.laplace({0}, {S})
jax.random.logistic({0}, {S})
jax.random.rayleigh({0}, 1.5, {S})
jax.random.exponential({0}, {S})
jax.random.pareto({0}, 3.0, {S})
jax.random.weibull_min({0}, 1.0, 2.0, {S})
jax.random.lognormal({0}, 1.0, {S})
jax.random.triangular({0}, 0.0, 0.5, 1.0, {S})
jax.random.maxwell({0}, {S})
jax.random.double_sided_maxwell({0}, 0.0, 1.0, {S})
jax.random.wald({0}, 1.0, {S})
""")
SLOW_KEYED = _lines("""
jax.random.gamma({0}, 2.0, {S})
jax.random.loggamma({0}, 2.0, {S})
jax.random.beta({0}, 2.0, 3.0, {S})
jax.random.chisquare({0}, 3.0, {S})
jax.random.t({0}, 4.0, {S})
jax.random.f({0}, 3.0, 5.0, {S})
jax.random.generalized_normal({0}, 1.5, {S})
""")
KEYED_INTEGERS = _lines("""
jax.random.bits({0}, {S})
jax.random.bits({0}, {S}, jnp.uint8)
jax.random.randint({0}, {S}, 0, 9)
jax.random.randint({0}, {S}, -9, 9, jnp.int16)
jax.random.bernoulli({0}, 0.4, {S}).astype(int)
jax.random.rademacher({0}, {S})
jax.random.choice({0}, 7, {S})
jax.random.poisson({0}, 3.0, {S})
jax.random.geometric({0}, 0.3, {S})
""")
SLOW_KEYED_INTEGERS = ("jax.random.binomial({0}, 5.0, 0.5, {S}).astype(int)",)
KEYED_OTHERS = (
    ("jax.random.permutation({0}, 3)", "i", (3,)),
    ("jax.random.permutation({0}, jnp.arange(6.0).reshape(2, 3))", "f", (2, 3)),
    ("jax.random.orthogonal({0}, 3)[1]", "f", (3,)),
    ("jax.random.categorical({0}, jnp.zeros((3, 4)))", "i", (3,)),
    ("jax.random.multivariate_normal({0}, jnp.zeros(3), jnp.eye(3))", "f", (3,)),
    ("jax.random.choice({0}, jnp.arange(9.0), (3,), False)", "f", (3,)),
    ("jax.vmap(lambda k: jax.random.normal(k, (3,)))(jax.random.split({0}, 2))", "f", (2, 3)),
    ("jax.random.key_data({0})[0].astype(jnp.int32)", "i", ()),
)
SLOW_KEYED_OTHERS = (
    ("jax.random.ball({0}, 3)", "f", (3,)),
    ("jax.random.dirichlet({0}, jnp.ones(3))", "f", (3,)),
)
