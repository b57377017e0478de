"""What XLA compiles otherwise for other lanes, beside other steps or for a mesh: right values, or a note."""

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brainstate import ShortTermState

import shardinit
from tests.conftest import mesh_of
from tests.reference import assert_like_brainstate

DIVISORS = np.linspace(1.1, 3.3, 7, dtype=np.float32)


def normal(*shape):
    return brainstate.random.normal(size=shape)


def with_jit(function):
    """Make a state of a lane's numbers by a jit that also takes numbers that all lanes share."""
    return lambda x, y: jax.jit(function)(jnp.arange(1.0, 8.0), x)


# What init makes of two draws of seven numbers. Of what the lanes share, eager XLA computes parts before its loop.
EXACT = {
    "a jit of integers": lambda x, y: jax.jit(lambda i, v: v + i * 0.1)(jnp.arange(7), x),
    "a jit of an array": with_jit(lambda i, v: v * i + i * 0.1),
    "a jit that counts in floats": lambda x, y: jax.jit(lambda v: v * 0.3 + jnp.arange(7.0) * 0.1)(x),
    "a square of an array": with_jit(lambda i, v: v - i * i),
    "a power": with_jit(lambda i, v: v - i**3),
    "exp": with_jit(lambda i, v: v + jnp.exp(i)),
    "log": with_jit(lambda i, v: v - jnp.log(i)),
    "a quotient by a literal": with_jit(lambda i, v: v + i / 3.3),
    "a jit in a jit": with_jit(lambda i, v: v + jax.jit(lambda i: i * 0.1)(i)),
    "a loop in a jit": with_jit(lambda i, v: jax.lax.fori_loop(0, 2, lambda _, v: v + jnp.exp(i) * 0.1, v)),
    "two by an array of NumPy": lambda x, y: x / DIVISORS + y / DIVISORS,
    "two by an array": lambda x, y: x / jnp.asarray(DIVISORS) + y / jnp.asarray(DIVISORS),
    "two by one number": lambda x, y: (lambda c: x / c + y / c)(jnp.float32(3.3)),
    "lax.div": lambda x, y: jax.lax.div(x, jnp.asarray(DIVISORS)) + jax.lax.div(y, jnp.float32(3.3)),
    "an output that nothing needs": lambda x, y: jax.jit(lambda x, y: (x * y + x, x * y))(x, y)[0],
    "an output that nothing needs, of what lanes share": lambda x, y: jax.jit(lambda x, y: (x * y + x, x * y))(
        jnp.sin(DIVISORS), jnp.cos(DIVISORS)
    )[0],
    "two by one of the lane": lambda x, y: x / (y[0] + 9) + y / (y[0] + 9),
}
quotient = jax.custom_jvp(lambda x, c: x / c)
quotient.defjvp(lambda values, tangents: (quotient(*values), tangents[0]))
NAMED = {
    "a jit that divides twice": lambda x, y: jax.jit(lambda x, y, c: x / c + y / c)(x, y, 3.3),
    "by one of the lane": lambda x, y: jax.jit(lambda x, y, c: x / c + y / c)(x, y, y[0] + 9),
    "by what is equal": lambda x, y: jax.jit(lambda x, y, c: x / (c * c) + y / (c * c))(x, y, 3.3),
    "by a number that it makes": lambda x, y: jax.jit(lambda x, y: x / x.max() + y / x.max())(x, y),
    "in functions that XLA sees through": lambda x, y: jax.jit(lambda x, y, c: quotient(x, c) + quotient(y, c))(
        x, y, 3.3
    ),
    "in what is computed again": lambda x, y: jax.jit(lambda x, y, c: jax.checkpoint(quotient)(x, c) + y / c)(
        x, y, 3.3
    ),
    "one that it also compares with": lambda x, y: jax.jit(lambda x, c: jnp.where(x > c, c, x / c))(x, 3.3),
    "one that it also adds": lambda x, y: jax.jit(lambda x, c: x / c + c)(x, 3.3),
    "jvp of what lanes share": lambda x, y: jax.jvp(lambda x: jnp.sin(x) / 3.3, (DIVISORS,), (jnp.ones(7),))[1],
    "jvp": lambda x, y: jax.jvp(lambda x: jnp.sin(x) / 3.3, (x,), (y,))[1],
}


def module_of(make):
    class Module(brainstate.nn.Module):
        def init_state(self):
            self.v = ShortTermState(make(normal(7), normal(7)))

    return Module


def initialize_on(shape, axis_size=64):
    return lambda module: shardinit.shard_new_states(module, axis_size=axis_size, mesh=mesh_of(*shape))


# With 128 lanes a device of eight has 112 elements: enough full vectors that their number alone decides nothing.
@pytest.mark.parametrize(("shape", "axis_size"), [((1,), 64), ((8,), 128), ((4, 2), 64)], ids=str)
@pytest.mark.parametrize("name", EXACT)
def test_on_every_mesh(name, shape, axis_size):
    make = module_of(EXACT[name])
    _, result = assert_like_brainstate(make, initialize_on(shape, axis_size), axis_size=axis_size)
    assert not any("last bit" in note for note in result.receipt.notes)


class Scaled(brainstate.nn.Module):
    """Large states, each divided by one number, as initializers do."""

    def init_state(self):
        scale = jnp.sqrt(jnp.float32(11.0))
        self.u = ShortTermState(normal(1 << 16) / scale + normal(1 << 16) / scale)
        self.v = ShortTermState(normal(1 << 16) / 3.3)
        self.w = ShortTermState(normal(1 << 16) / np.float32(3.3) - normal(1 << 16) / 3.3)


@pytest.mark.parametrize("shape", [(1,), (8,), (4, 2)], ids=str)
def test_large_states_divided_by_a_number_are_exact_and_have_no_note(shape):
    _, result = assert_like_brainstate(Scaled, initialize_on(shape, 8), axis_size=8)
    assert result.receipt.notes == ()


@pytest.mark.parametrize("shape", [(1,), (8,)], ids=str)
@pytest.mark.parametrize("name", NAMED)
def test_what_divides_by_what_it_also_reads_otherwise_is_named(name, shape):
    """XLA multiplies by the inverse where it sees one division alone: when it looks, the program around it decides."""
    result = initialize_on(shape)(module_of(NAMED[name])())
    assert any("divides" in note and ": v" in note for note in result.receipt.notes)


def test_it_is_named_whatever_else_is_said_of_it():
    make = module_of(NAMED["a jit that divides twice"])
    with jax.default_prng_impl("rbg"):  # every device computes all lanes
        brainstate.random.seed(0)
        result = initialize_on((8,))(make())
    brainstate.random.seed(0)
    assert any("divides" in note for note in result.receipt.notes)
    program = shardinit.discover(make())
    planned = shardinit.plan(program.specs, shardinit.Topology("cpu", 1), axis_size=8)
    assert any("divides" in note for note in shardinit.compile(program, planned).notes)


def test_an_attribute_is_named_where_it_could_differ():
    class Module(brainstate.nn.Module):
        def init_state(self):
            self.v = ShortTermState(normal(7))
            self.table = jax.jit(lambda x, y: (x * y + x, x * y))(jnp.sin(DIVISORS), jnp.cos(DIVISORS))[0]

    result = initialize_on((8,))(Module())
    assert any("last bit" in note and "table" in note for note in result.receipt.notes)


def scanned(x):
    def step(carry, _):
        jax.debug.callback(lambda _: None, carry)
        return carry * carry + carry, carry

    return jax.lax.scan(step, x, None, 2)[0]


def looped(x):
    def step(carry):
        jax.debug.callback(lambda _: None, carry)
        return carry * carry + carry

    return jax.lax.while_loop(lambda carry: carry.max() < 1, step, x * 0.1)


def branched(x):
    def step(value):
        jax.debug.callback(lambda _: None, value)
        return value * value + value

    return jax.lax.cond(x[0] > 0, step, lambda value: value, x)


@pytest.mark.parametrize(
    "function", [scanned, looped, branched, jax.jit(scanned)], ids=["scan", "while", "cond", "jit"]
)
def test_steps_that_make_nothing_are_passed_by(function):
    assert_like_brainstate(module_of(lambda x, y: function(x)), initialize_on((8,), 8), axis_size=8)


def test_with_most_optimizations_disabled():
    class Module(brainstate.nn.Module):
        def init_state(self):
            self.v = ShortTermState(jnp.exp(normal(7)))
            self.w = ShortTermState(jax.scipy.special.erf(normal(7)))

    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    jax.clear_caches()  # JAX does not look at it again for what it has compiled
    try:
        for shape in ((1,), (4, 2)):
            assert_like_brainstate(Module, initialize_on(shape), axis_size=64)
    finally:
        jax.config.update("jax_disable_most_optimizations", before)
        jax.clear_caches()
