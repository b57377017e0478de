"""Exact inside of every function that takes functions: as eager JAX, which opens some of them and compiles others."""

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
from brainstate import HiddenState
from jax import lax

import shardinit
from tests.conftest import mesh_of

R = brainstate.random


def f(v):
    """Chains that a compiler contracts."""
    return v * 0.3 - 65 + v * v * 1.7


def g(v):
    return v * 0.7 + 1.3 - v * 0.1


@jax.custom_batching.custom_vmap
def by_rule(v):
    return f(v)


@by_rule.def_vmap
def _rule(axis_size, in_batched, v):
    return f(v) * 0.9 + g(v), True


@jax.custom_jvp
def with_jvp(v):
    return f(v)


with_jvp.defjvp(lambda p, t: (f(*p), t[0] * 0.3))


@jax.custom_vjp
def with_vjp(v):
    return f(v)


with_vjp.defvjp(lambda v: (f(v), v), lambda v, t: (g(v) * t,))


def solve(v):
    return lax.custom_linear_solve(lambda x: x * 0.3 + x * 1.7, v, lambda _, b: f(b) / 2.0 + g(b), symmetric=True)


STEPS = {
    "checkpoint": jax.checkpoint(f),
    "brainstate_checkpoint": brainstate.transform.checkpoint(f),
    "cond_by_lane": lambda v: lax.cond(v[0] > 0, f, g, v),
    "cond_shared": lambda v: lax.cond(jnp.arange(3)[1] > 0, f, g, v),
    "switch_by_lane": lambda v: lax.switch((v[0] * 10).astype(int) % 3, [f, g, lambda v: f(g(v))], v),
    "cond_in_cond": lambda v: lax.cond(v[0] > 0, lambda v: lax.cond(v[1] > 0, f, g, v), g, v),
    "custom_vmap": by_rule,
    "custom_jvp": with_jvp,
    "custom_vjp": with_vjp,
    "custom_vjp_in_checkpoint": jax.checkpoint(lambda v: with_vjp(v) * 0.3 + with_jvp(v)),
    "custom_linear_solve": solve,
    "jit": jax.jit(f),
    "jit_in_jit": jax.jit(lambda v: jax.jit(f)(v) * 0.3 + jax.jit(g, inline=True)(v)),
    "jit_of_two": lambda v: jax.jit(lambda a, b: a * 0.3 - b * 1.7)(v, v),
    "jit_of_equals": lambda v: jax.jit(lambda a, b: a * b - b * a)(v * 2.0, v * 2.0),
    "jit_of_an_own_part": lambda v: jax.jit(lambda a, b: a[:4] * b - b * a[:4])(v, v[:4]),
    "jit_one_of_two_outputs": lambda v: jax.jit(lambda a: (a * 0.3, a * 0.3 + 65.1))(v)[1],
    "named_call": jax.named_call(f),
    "scan": lambda v: lax.scan(lambda c, x: (f(c) * 0.01 + x, g(c)), v * 0.3, jnp.stack([v, v * 0.1]))[1],
    "grad_of_checkpoint": jax.vmap(jax.grad(jax.checkpoint(lambda x: jnp.sin(f(x)) * x))),
    "platform": lambda v: lax.platform_dependent(v, cpu=f, default=g),
    "while_by_lane": lambda v: lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, f(c[1]) * 0.01), (v[0], v))[1],
    "map": lambda v: lax.map(f, v),
    "cross": lambda v: jnp.cross(v[:3], v[:3]),
}


class Table(brainstate.nn.Module):
    """One state per function of a table."""

    def __init__(self, functions):
        super().__init__()
        self.functions = functions

    def init_state(self):
        for name, function in self.functions.items():
            setattr(self, f"made_{name}", HiddenState(function(R.normal(size=(11,)))))


def test_functions_that_take_functions():
    brainstate.random.seed(7)
    theirs = Table(STEPS)
    brainstate.transform.vmap2_new_states(theirs, {}, axis_size=8)
    for devices in (1, 8):
        brainstate.random.seed(7)
        ours = Table(STEPS)
        shardinit.shard_new_states(ours, axis_size=8, mesh=mesh_of(devices))
        found = {name: np.asarray(getattr(ours, f"made_{name}").value) for name in STEPS}
        expected = {name: np.asarray(getattr(theirs, f"made_{name}").value) for name in STEPS}
        assert [n for n in STEPS if found[n].tobytes() != expected[n].tobytes()] == []
