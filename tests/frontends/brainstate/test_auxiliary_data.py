"""Arrays that init makes and a pytree class keeps as auxiliary data: values afterwards, never tracers."""

from typing import NamedTuple

import brainevent
import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brainstate import ParamState

import shardinit
from shardinit.frontends.brainstate.containers import parts_of
from shardinit.frontends.brainstate.snapshot import walk

R = brainstate.random


class Box:
    def __init__(self, array):
        self.array = array


@jax.tree_util.register_pytree_node_class
class Sparse:
    """A leaf, and anything beside it."""

    def __init__(self, data, beside):
        self.data, self.beside = data, beside

    def tree_flatten(self):
        return (self.data,), self.beside

    @classmethod
    def tree_unflatten(cls, beside, leaves):
        return cls(leaves[0], beside)


class Pair(NamedTuple):
    a: object
    b: object


class Holds(brainstate.nn.Module):
    def __init__(self, make):
        super().__init__()
        self.make = make

    def init_state(self):
        self.w = ParamState(self.make())
        self.attribute = self.make()


def assert_no_tracer(module):
    """Look everywhere: attributes, slots, closures, leaves and auxiliary data."""
    for path, value in walk({(): module}, values_of_states=True):
        held = [child for _, child in parts_of(value)]
        if isinstance(value, brainstate.State):
            held += list(everything(jax.tree.structure(value.value))) + jax.tree.leaves(value.value)
        assert not any(isinstance(x, jax.core.Tracer) for x in held), path


def everything(tree):
    if (node := tree.node_data()) is not None:
        yield node[1]
        yield from (child for _, value in walk({(): node[1]}) for _, child in parts_of(value))
        for child in tree.children():
            yield from everything(child)


def grid():
    return jnp.arange(3) * 2


BESIDE = {
    "tuple": lambda: (grid(), 3),
    "dictionary": lambda: {"indices": grid(), "n": 3},
    "list": lambda: [1, [grid()]],
    "named tuple": lambda: Pair(grid(), "b"),
    "object": lambda: Box(Box((grid(),))),
    "closure": lambda: (lambda kept: lambda: kept)(grid()),
    "nested": lambda: ({"a": [Pair(1, (grid(),))]},),
}


@pytest.mark.parametrize("beside", BESIDE.values(), ids=BESIDE)
def test_no_tracer_is_left_in_auxiliary_data(beside):
    module = Holds(lambda: {"layer": [Sparse(R.normal(size=(3,)), beside())]})
    result = shardinit.shard_new_states(module, axis_size=4)
    assert_no_tracer(module)
    assert module.w.value["layer"][0].data.shape == (4, 3)
    assert any("auxiliary data" in note for note in result.receipt.notes)


@pytest.mark.parametrize("function", [shardinit.vmap2_new_states, shardinit.pmap2_new_states])
def test_values_in_auxiliary_data(function):
    module = Holds(lambda: Sparse(R.normal(size=(3,)), {"indices": grid(), "n": 3}))
    function(module, {}, axis_size=8)
    indices = module.w.value.beside["indices"]
    assert isinstance(indices, jax.Array)
    np.testing.assert_array_equal(indices, [0, 2, 4])
    assert_no_tracer(module)


def test_a_sparse_matrix_with_indices_made_in_init():
    def csr():
        indices, indptr = jnp.array([0, 2, 1]) * 1, jnp.array([0, 2, 3, 3]) * 1
        return brainevent.CSR((R.normal(size=(3,)), indices, indptr), shape=(3, 3))

    module = Holds(csr)
    R.seed(3)
    shardinit.shard_new_states(module, axis_size=4)
    reference = Holds(csr)
    R.seed(3)
    brainstate.transform.vmap2_new_states(reference, {}, axis_size=4)
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(module.w.value, name), getattr(reference.w.value, name))
    assert_no_tracer(module)


def test_auxiliary_data_that_differ_by_lane_are_refused_by_name():
    module = Holds(lambda: {"a": Sparse(jnp.ones(3), {"drawn": R.normal(size=(3,))})})
    with pytest.raises(shardinit.LaneValueError, match=r"Sparse\.drawn in w \(ParamState\).*tree_flatten"):
        shardinit.shard_new_states(module, axis_size=4)
    assert not hasattr(module, "w")
