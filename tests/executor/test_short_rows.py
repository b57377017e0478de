"""Where the last axis is short, XLA (since jax 0.11) writes its loop out: what is fused with it decides last bits."""

import brainstate
import jax
import jax.numpy as jnp
import pytest
from brainstate import ParamState, ShortTermState

import shardinit
from tests.conftest import mesh_of
from tests.reference import assert_like_brainstate

R = brainstate.random


class Rows(brainstate.nn.Module):
    """Each draw or function alone rounds otherwise than in a loop with what follows."""

    def __init__(self, shape):
        super().__init__()
        self.shape = shape

    def init_state(self):
        self.tanh = ParamState(jnp.tanh(R.normal(size=self.shape)))
        self.exp = ParamState(jnp.exp(R.normal(size=self.shape)) * 2.0)
        self.scaled = ParamState(R.truncated_normal(-2.0, 2.0, size=self.shape) * 0.3 + 1.0)
        self.logistic = ParamState(jax.nn.sigmoid(R.normal(size=self.shape)) - 0.5)
        self.log = ParamState(-jnp.log(R.uniform(size=self.shape)))
        self.flat = ParamState(jnp.exp(R.normal(size=self.shape).reshape(-1)).reshape(self.shape))
        self.turned = ParamState(jnp.tanh(R.normal(size=self.shape).T))
        self.by_number = ShortTermState(jnp.exp(R.normal(size=())) * R.normal(size=self.shape[:1]))
        fixed = jax.random.normal(jax.random.key(3), self.shape)
        self.shared = ParamState(jnp.tanh(fixed) * 0.3 + jnp.exp(fixed))


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("shape", [(304, 3), (64, 10), (12, 12), (3, 304), (20,)], ids=str)
def test_short_rows(shape, devices):
    _, result = assert_like_brainstate(
        lambda: Rows(shape), lambda m: shardinit.shard_new_states(m, axis_size=16, mesh=mesh_of(devices)), axis_size=16
    )
    assert not any("last bit" in note for note in result.receipt.notes)


@pytest.mark.parametrize("axis", [-1, 1])
def test_lanes_on_another_axis(axis):
    filters = {axis: ...}
    for devices in (1, 8):
        assert_like_brainstate(
            lambda: Rows((64, 32)),
            lambda m, n=devices: shardinit.shard_new_states(m, axis_size=16, mesh=mesh_of(n), state_out_axes=filters),
            axis_size=16,
            state_out_axes=filters,
        )


class Drawn(brainstate.nn.Module):
    """A draw is one loop in eager JAX too: with short rows, its bits depend on the number of lanes."""

    def __init__(self, shape):
        super().__init__()
        self.shape = shape

    def init_state(self):
        self.normal = ParamState(R.normal(size=self.shape))
        self.laplace = ParamState(R.laplace(size=self.shape))


@pytest.mark.parametrize(("shape", "axis_size"), [((304, 3), 4), ((304, 3), 8), ((256, 5), 8), ((7,), 64)], ids=str)
def test_draws_of_short_rows(shape, axis_size):
    for devices in (1, 4):
        assert_like_brainstate(
            lambda: Drawn(shape),
            lambda m, n=devices: shardinit.shard_new_states(m, axis_size=axis_size, mesh=mesh_of(n)),
            axis_size=axis_size,
        )


def test_draws_of_short_rows_that_are_too_many_are_named():
    """Of more than ``MOST_WHOLE`` numbers each device makes its own part."""
    result = shardinit.shard_new_states(Drawn((304, 3)), axis_size=64, mesh=mesh_of(8))
    (note,) = result.receipt.notes
    assert "last bit" in note
    assert "normal, laplace" in note
