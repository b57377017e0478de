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


# What init makes of two draws of seven numbers. Of what the lanes share, eager XLA computes parts before its loop.
EXACT = {
    "a jit of numbers": lambda x, y: jax.jit(lambda i, v: v + i * 0.1)(jnp.arange(7), x),
    "a jit of an array": lambda x, y: jax.jit(lambda i, v: v * i + i * 0.1)(jnp.linspace(0.0, 1.0, 7), x),
    "a square of an array": lambda x, y: jax.jit(lambda i, v: v - i * i)(jnp.arange(7) * 0.3, x),
    "a jit in a jit": lambda x, y: jax.jit(lambda i, v: v + jax.jit(lambda i: i * 0.1)(i))(jnp.arange(7), x),
    "two by an array of NumPy": lambda x, y: x / DIVISORS + y / DIVISORS,
    "two by an array": lambda x, y: x / jnp.asarray(DIVISORS) + y / jnp.asarray(DIVISORS),
    "two by a number": lambda x, y: x / jnp.float32(3.3) + y / jnp.float32(3.3),
    "lax.div": lambda x, y: jax.lax.div(x, jnp.asarray(DIVISORS)) + jax.lax.div(y, jnp.float32(3.3)),
    "an output that nothing needs": lambda x, y: jax.jit(lambda x, y: (x * y + x, x * y))(x, y)[0],
    "an output that nothing needs, of what lanes share": lambda x, y: jax.jit(lambda x, y: (x * y + x, x * y))(
        jnp.sin(DIVISORS), jnp.cos(DIVISORS)
    )[0],
    "two by one of the lane": lambda x, y: x / (y[0] + 9) + y / (y[0] + 9),
}
NAMED = {
    "a jit that divides twice": lambda x, y: jax.jit(lambda x, y, c: x / c + y / c)(x, y, 3.3),
    "twice by one of the lane": lambda x, y: jax.jit(lambda x, y, c: x / c + y / c)(x, y, y[0] + 9),
    "twice by what is equal": lambda x, y: jax.jit(lambda x, y, c: x / (c * c) + y / (c * c))(x, y, 3.3),
    "jvp of what lanes share": lambda x, y: jax.jvp(lambda x: jnp.sin(x) / 3.3, (DIVISORS,), (jnp.ones(7),))[1],
    "jvp": lambda x, y: jax.jvp(lambda x: jnp.sin(x) / 3.3, (x,), (y,))[1],
}


def module_of(make):
    class Module(brainstate.nn.Module):
        def init_state(self):
            self.v = ShortTermState(make(normal(7), normal(7)))

    return Module


def initialize_on(shape):
    return lambda module: shardinit.shard_new_states(module, axis_size=64, mesh=mesh_of(*shape))


@pytest.mark.parametrize("shape", [(1,), (8,), (4, 2)], ids=str)
@pytest.mark.parametrize("name", EXACT)
def test_on_every_mesh(name, shape):
    _, result = assert_like_brainstate(module_of(EXACT[name]), initialize_on(shape), axis_size=64)
    assert not any("last bit" in note or "vectors" in note for note in result.receipt.notes)


@pytest.mark.parametrize("shape", [(1,), (8,)], ids=str)
@pytest.mark.parametrize("name", NAMED)
def test_a_program_that_divides_twice_is_named(name, shape):
    """XLA multiplies by the inverse where it sees one division alone: when it looks, the program around it decides."""
    result = initialize_on(shape)(module_of(NAMED[name])())
    assert any("vectors" in note and ": v" in note for note in result.receipt.notes)


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
