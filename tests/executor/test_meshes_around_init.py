"""Init under ``jax.set_mesh`` may name the axes of that mesh: values are those of eager brainstate."""

import brainstate
import jax
import jax.numpy as jnp
import pytest
from brainstate import HiddenState
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import shardinit
from tests.reference import assert_like_brainstate

R = brainstate.random


class OnAutoAxes(brainstate.nn.Module):
    def init_state(self):
        v = R.normal(size=(16,))
        self.constraint = HiddenState(jax.lax.with_sharding_constraint(v, P("x")) * 0.3)
        self.out = HiddenState(jax.jit(lambda v: v + 1.0, out_shardings=P("x"))(v))
        self.put = HiddenState(jax.device_put(v, P("x")))
        self.shape = HiddenState(jax.lax.reshape(v, (4, 4), out_sharding=P(None, None)))
        self.shared = HiddenState(jax.device_put(jnp.arange(16.0), P("x")))
        self.drawn = HiddenState(R.randint(0, 9, size=(8,)))


class OnExplicitAxes(brainstate.nn.Module):
    def init_state(self):
        v = R.normal(size=(16,))
        self.drawn = HiddenState(jax.random.normal(R.split_key(), (16,), out_sharding=P("x")))
        self.inside = HiddenState(
            jax.jit(lambda k: jax.random.uniform(k, (8, 2), out_sharding=P("x", None)) * 3)(R.split_key())
        )
        self.shared = HiddenState(jax.random.normal(jax.random.key(0), (16,), out_sharding=P("x")))
        self.again = HiddenState(jax.sharding.reshard(v, P("x")) * 2)
        self.filled = HiddenState(jnp.zeros((16,), out_sharding=P("x")) + v)
        self.counted = HiddenState(jnp.arange(16, out_sharding=P("x")) + v)
        self.product = HiddenState(jnp.einsum("i,j->ij", v, jnp.ones(4), out_sharding=P("x", None)))
        self.spread = HiddenState(jnp.broadcast_to(v[0], (16,), out_sharding=P("x")))
        self.out = HiddenState(jax.jit(lambda v: v + 1.0, out_shardings=P("x"))(v))
        self.put = HiddenState(jax.device_put(v, P("x")))
        self.looped = HiddenState(jax.lax.scan(lambda c, x: (c * 0.9 + x, c), 0.0, v)[1])
        self.chosen = HiddenState(jax.lax.cond(v[0] > 0, lambda: v, lambda: -v))
        self.asked = HiddenState(v * float(jnp.arange(3.0, out_sharding=P(None))[1]))


class AsksForNothing(brainstate.nn.Module):
    def init_state(self):
        v = R.normal(size=(16,))
        self.drawn = HiddenState(R.randint(0, 9, size=(8,)))
        self.made = HiddenState(jnp.zeros((4, 4)) + jax.nn.softmax(v)[:4])


@pytest.mark.parametrize(
    ("make", "axes", "lines", "states"),
    [
        (OnAutoAxes, AxisType.Auto, 1, "out, put, shared"),
        (OnExplicitAxes, AxisType.Explicit, 3, "drawn, inside, shared, product, spread, out, put"),
        (AsksForNothing, AxisType.Explicit, 0, ""),
    ],
)
def test_init_may_name_the_axes_of_the_mesh_around_it(make, axes, lines, states):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(axes,))
    with jax.set_mesh(mesh):
        _, result = assert_like_brainstate(make, lambda m: shardinit.shard_new_states(m, axis_size=8), axis_size=8)
    named = [n for n in result.receipt.notes if n.startswith("a placement asked for inside init was not followed")]
    assert sum("test_meshes_around_init.py" in n for n in named) == lines
    assert [n.partition(": ")[2] for n in named[lines:]] == ([states] if states else [])


def test_shardings_that_name_their_mesh_need_none_around_init():
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Explicit,))

    class Named(brainstate.nn.Module):
        def init_state(self):
            v = R.normal(size=(16,))
            self.again = HiddenState(jax.sharding.reshard(v, NamedSharding(mesh, P("x"))) * 2)
            self.put = HiddenState(jax.device_put(v, NamedSharding(mesh, P("x"))))

    assert_like_brainstate(Named, lambda m: shardinit.shard_new_states(m, axis_size=8), axis_size=8)
