"""Placements that init asks for change no value; the plan says where states go, and the receipt names them."""

import brainstate
import jax
import pytest
from brainstate import HiddenState
from jax.sharding import NamedSharding, PartitionSpec

import shardinit
from tests.conftest import mesh_of
from tests.reference import assert_like_brainstate


def asked():
    return NamedSharding(mesh_of(8, names=("x",)), PartitionSpec("x"))


def constrained(v):
    return jax.lax.with_sharding_constraint(v * 0.3, asked())


class Placed(brainstate.nn.Module):
    def init_state(self):
        v = brainstate.random.normal(size=(16,))
        self.constraint = HiddenState(constrained(v) + v * v)
        self.inside = HiddenState(jax.jit(lambda v: jax.jit(constrained)(v) + v)(v))
        self.returned = HiddenState(jax.jit(constrained)(v))
        self.put = HiddenState(jax.device_put(v, asked()) * 0.3)
        self.out = HiddenState(jax.jit(lambda v: v + 1.0, out_shardings=asked())(v))
        self.put_inside = HiddenState(jax.jit(lambda v: jax.device_put(v, asked()) * 0.3)(v))
        self.taken = HiddenState(jax.jit(lambda v: v + 1.0, in_shardings=asked())(v))


@pytest.mark.parametrize("devices", [1, 8])
def test_placements_inside_init(devices):
    _, result = assert_like_brainstate(
        Placed, lambda m: shardinit.shard_new_states(m, axis_size=8, mesh=mesh_of(devices)), axis_size=8
    )
    named = [n for n in result.receipt.notes if n.startswith("a placement asked for inside init was not followed")]
    assert len(named) == 7
