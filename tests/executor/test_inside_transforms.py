"""Inside jit and other transforms the init is inlined; nn.Map works with our functions in place."""

import brainstate
import brainstate.nn._common
import jax.numpy as jnp
import numpy as np
import pytest

import shardinit
from tests.modules import Nested
from tests.reference import assert_same


class Net(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = brainstate.nn.Linear(3, 4)

    def init_state(self):
        self.h = brainstate.HiddenState(brainstate.random.normal(size=(4,)) * 0.1)
        self.shared = shardinit.NonBatchState(jnp.ones(4))

    def update(self, x):
        self.h.value = jnp.tanh(self.linear(x) + self.h.value) * self.shared.value
        return self.h.value


def test_inside_jit():
    def run(function):
        module = Nested()
        states = function(module, {}, axis_size=4)
        return [s.value for s in states[0]]

    brainstate.random.seed(1)
    expected = brainstate.transform.jit(lambda: run(brainstate.transform.vmap2_new_states))()
    after = brainstate.random.DEFAULT.value
    brainstate.random.seed(1)
    found = brainstate.transform.jit(lambda: run(shardinit.vmap2_new_states))()
    assert_same(brainstate.random.DEFAULT.value, after)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_inside_another_mapping():
    def run(x):
        module = Net()
        shardinit.vmap2_new_states(module, {}, axis_size=4)
        return module.h.value * x

    out = brainstate.transform.vmap2(run)(jnp.arange(3.0))
    assert out.shape == (3, 4, 4)


def test_nested_in_an_init_of_our_own():
    class Outer(brainstate.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Net()

        @brainstate.nn.call_order(3)
        def init_state(self):
            shardinit.vmap2_new_states(self.inner, {}, axis_size=5)

    module = Outer()
    shardinit.shard_new_states(module, axis_size=8)
    assert module.inner.h.value.shape == (8, 5, 4)


def test_sharded_functions_refuse_to_run_inside_jit():
    @brainstate.transform.jit
    def run():
        shardinit.shard_new_states(Net(), axis_size=4)

    with pytest.raises(shardinit.ArgumentError, match="cannot run inside jit"):
        run()


@pytest.mark.parametrize("behavior", ["vmap", "pmap"])
def test_map_with_our_functions_in_place(monkeypatch, behavior):
    monkeypatch.setattr(brainstate.nn._common, "vmap2_new_states", shardinit.vmap2_new_states)
    monkeypatch.setattr(brainstate.nn._common, "pmap2_new_states", shardinit.pmap2_new_states)
    brainstate.random.seed(0)
    ours = brainstate.nn.Map(Net(), init_map_size=8, behavior=behavior)
    ours.init_all_states()
    out = ours(jnp.ones((8, 3)))
    assert out.shape == (8, 4)
    monkeypatch.undo()
    brainstate.random.seed(0)
    theirs = brainstate.nn.Map(Net(), init_map_size=8, behavior=behavior)
    theirs.init_all_states()
    np.testing.assert_allclose(out, theirs(jnp.ones((8, 3))), rtol=1e-5)
    assert list(ours.dict_vmap_states) == list(theirs.dict_vmap_states)
