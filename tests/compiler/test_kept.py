"""What stays in memory after an initialization: executables that may be used again, and nothing of the user's."""

import gc
import weakref

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import shardinit
from shardinit.compiler import executables as compiler

SIZE = 10_000


class ClosesOver(brainstate.nn.Module):
    """A ``jit`` that closes over a table, which XLA makes part of its program if it is NumPy's."""

    def __init__(self, table):
        super().__init__()
        self.table = table

    def init_state(self):
        table = self.table
        drawn = brainstate.random.uniform(size=(4,))
        self.v = brainstate.HiddenState(jax.jit(lambda x: x + jnp.take(table, jnp.int32(x * SIZE)))(drawn))


def table_of(number: int, kind) -> np.ndarray | jax.Array:
    return kind(np.random.RandomState(number).normal(size=SIZE).astype(np.float32))


def live_bytes() -> int:
    gc.collect()
    return sum(array.nbytes for array in jax.live_arrays())


@pytest.fixture
def cache(monkeypatch):
    found = compiler._Cache(compiler.CACHED_EXECUTABLES, 8 * 4 * SIZE)
    monkeypatch.setattr(compiler, "_executables", found)
    return found


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_equal_tables_are_compiled_once_and_do_not_pile_up(kind, cache):
    made = []
    for _ in range(5):
        module = ClosesOver(table_of(0, kind))
        shardinit.vmap2_new_states(module, {}, axis_size=2)
        del module
        made.append((len(cache.futures), live_bytes()))
    assert made[2:] == made[1:-1]  # the first trace warms JAX's own caches


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_tables_that_differ_do_not_pile_up(kind, cache):
    made = []
    for number in range(12):
        module = ClosesOver(table_of(number, kind))
        brainstate.random.seed(number)
        shardinit.vmap2_new_states(module, {}, axis_size=2)
        value = np.asarray(module.v.value)
        del module
        made.append(live_bytes())
        eager = ClosesOver(table_of(number, kind))
        brainstate.random.seed(number)
        brainstate.transform.vmap2_new_states(eager, {}, axis_size=2)
        np.testing.assert_array_equal(value, np.asarray(eager.v.value))
        del eager
        assert sum(cache.sizes.values()) <= cache.most_bytes
    assert max(made) - min(made) < 4 * SIZE
    assert set(cache.sizes) == set(cache.futures)


def by_lambda(module):
    return lambda x: x + module.table[0]


def by_default(module):
    def add(x, table=module.table):
        return x + table[0]

    return add


def by_method(module):
    return module.add


class CallsBack(brainstate.nn.Module):
    def __init__(self, make):
        super().__init__()
        self.make = make
        self.table = np.ones(SIZE, np.float32)

    def add(self, x):
        return x + self.table[0]

    def init_state(self):
        drawn = brainstate.random.uniform(size=())
        shape = jax.ShapeDtypeStruct((), np.float32)
        self.v = brainstate.HiddenState(jax.pure_callback(self.make(self), shape, drawn, vmap_method="sequential"))


@pytest.mark.parametrize("make", [by_lambda, by_default, by_method])
def test_what_a_callback_holds_is_let_go(make):
    module = CallsBack(make)
    shardinit.vmap2_new_states(module, {}, axis_size=2)
    table = weakref.ref(module.table)
    assert np.all(np.asarray(module.v.value) >= 1)
    del module
    gc.collect()
    assert table() is None


def twice(x):
    return x * 2


def test_a_callback_that_holds_nothing_is_compiled_once():
    class Doubles(brainstate.nn.Module):
        def init_state(self):
            drawn = brainstate.random.uniform(size=())
            shape = jax.ShapeDtypeStruct((), np.float32)
            self.v = brainstate.HiddenState(jax.pure_callback(twice, shape, drawn, vmap_method="sequential"))

    shardinit.shard_new_states(Doubles(), axis_size=2)
    receipt = shardinit.shard_new_states(Doubles(), axis_size=2).receipt
    assert receipt.cached_programs == receipt.programs
