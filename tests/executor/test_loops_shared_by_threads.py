"""Large loops are shared by threads, each a part that fills no vectors; what is fused in them decides last bits."""

import brainstate
import jax
import jax.numpy as jnp
import pytest
from brainstate import HiddenState

import shardinit
from tests.conftest import mesh_of
from tests.reference import assert_like_brainstate

R = brainstate.random


class Chains(brainstate.nn.Module):
    """A draw, and functions of it that XLA would compute in the loop of the draw."""

    def __init__(self, shape):
        super().__init__()
        self.shape = shape

    def init_state(self):
        x = R.normal(size=self.shape)
        self.x = HiddenState(x)
        self.log = HiddenState(jnp.log1p(jnp.abs(x)))


class Complex(brainstate.nn.Module):
    """A complex product is products and a sum, of which the loop around it decides which are one instruction."""

    def __init__(self, size):
        super().__init__()
        self.size = size

    def init_state(self):
        x = R.normal(size=(self.size,)) + 1j * R.normal(size=(self.size,))
        self.cube = HiddenState(x * x * x)
        self.square = HiddenState(jnp.square(x) * x)
        self.sum = HiddenState(x * jnp.conj(x) + x)
        self.quotient = HiddenState(x / (x + 1))
        self.inside = HiddenState(jax.jit(lambda v: v * v + v)(x))
        self.parts = HiddenState(x.real * x.imag + x.real)


def assert_like_eager(make, axis_size, devices):
    _, result = assert_like_brainstate(
        make,
        lambda m: shardinit.shard_new_states(m, axis_size=axis_size, mesh=mesh_of(devices)),
        axis_size=axis_size,
        seed=0,  # one number of 131,200 rounds otherwise in a loop with the draw
    )
    assert result.receipt.notes == ()


@pytest.mark.parametrize(("axis_size", "devices"), [(8, 1), (8, 8)])
def test_chains(axis_size, devices):
    assert_like_eager(lambda: Chains((16400,)), axis_size, devices)


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("size", [40, 8208])
def test_complex_products(size, devices):
    assert_like_eager(lambda: Complex(size), 8, devices)
