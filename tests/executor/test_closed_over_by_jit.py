"""Large arrays that a ``jit`` inside init closes over are inputs of its program: counted, placed once, and dropped."""

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brainstate import ParamState

import shardinit
from shardinit.compiler.strategies import piece_program
from tests.conftest import mesh_of
from tests.reference import assert_like_brainstate

R = brainstate.random
SIZE = 1 << 15
MADE = np.random.default_rng(0).normal(size=SIZE).astype(np.float32)
TABLE = jnp.asarray(MADE)

ZEROS = jnp.zeros(SIZE)

TAKEN = {
    "array": jax.jit(lambda x: x * 0.3 + TABLE),
    "NumPy array": jax.jit(lambda x: x * MADE - 65.0),
    "moved": jax.jit(lambda x: x + TABLE.reshape(2, -1)[::-1].ravel()),
    "looked up": jax.jit(lambda x: jnp.take(TABLE, (x * 100).astype(jnp.int32) % SIZE) * 0.5 + x),
    "nested": jax.jit(lambda x: jax.jit(lambda y: y * TABLE)(x) + 1.0),
    "passed on": jax.jit(lambda x: jax.jit(lambda y, t: y * t)(x, TABLE) + TABLE),
}
# XLA divides by what it knows in another way, and evaluates it: eager JAX lets it.
KNOWN = {
    "divided by": jax.jit(lambda x: x / TABLE),
    "computed with": jax.jit(lambda x: x + jnp.exp(TABLE)),
    "multiplied before": jax.jit(lambda x: x + TABLE * 0.3),
    "zeros added": jax.jit(lambda x: jnp.where(x > 0, x, -0.0) + ZEROS),
    "zeros turned and added": jax.jit(lambda x: jnp.where(x > 0, x, -0.0) + jax.jit(lambda y: y)(ZEROS[::-1])),
    "inside a jit that is inside": jax.jit(lambda x: jax.jit(lambda y: y / TABLE)(x) + 1.0),
    "inside a loop": jax.jit(lambda x: jax.lax.fori_loop(0, 2, lambda i, c: c + TABLE, x)),
}


def module_of(function):
    class Once(brainstate.nn.Module):
        def init_state(self):
            self.a = ParamState(function(R.normal(size=(SIZE,))))
            self.b = ParamState(function(R.normal(size=(SIZE,))))

    return Once


def longest_program(program, plan):
    compiled = shardinit.compile(program, plan).wait()
    lowered = [piece_program(p.program, compiled.tables, p.layout) for p in compiled.programs]
    return max(len(jitted.lower(*arguments).as_text()) for jitted, arguments in lowered)


@pytest.mark.parametrize("function", TAKEN.values(), ids=TAKEN)
def test_they_are_counted_and_in_no_program(function):
    _, result = assert_like_brainstate(
        module_of(function), lambda m: shardinit.shard_new_states(m, axis_size=4, mesh=mesh_of(2)), axis_size=4
    )
    assert result.plan.constant_bytes == 4 * SIZE  # once, for both states
    assert not any("numbers in its program" in note for note in result.receipt.notes)
    program = shardinit.discover(module_of(function)())
    assert longest_program(program, shardinit.plan(program, shardinit.Topology("cpu", 2), axis_size=4)) < 4 * SIZE


@pytest.mark.parametrize("function", KNOWN.values(), ids=KNOWN)
def test_what_xla_computes_otherwise_if_it_knows_it_stays_known_and_is_named(function):
    _, result = assert_like_brainstate(
        module_of(function), lambda m: shardinit.shard_new_states(m, axis_size=4, mesh=mesh_of(2)), axis_size=4
    )
    notes = [n for n in result.receipt.notes if "numbers in its program" in n]
    assert len(notes) == 2  # two lines
    assert all(n.startswith(f"{4 * SIZE} bytes") and "test_closed_over_by_jit.py" in n for n in notes)
