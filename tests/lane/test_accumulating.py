"""What adds up is found by what the equations do, whatever the user calls a function."""

import brainstate
import jax
import jax.numpy as jnp
import pytest

import shardinit
from shardinit.lane.primitives import accumulates


def named_diagonal(x):
    return x.sum(axis=0)


named_diagonal.__name__ = named_diagonal.__qualname__ = "diagonal"


@pytest.mark.parametrize(
    ("function", "adds_up"),
    [(jax.jit(named_diagonal), True), (jnp.diagonal, False), (jnp.trace, True), (jax.jit(jnp.sin), False)],
    ids=["a sum called diagonal", "diagonal", "trace", "sin"],
)
def test_names_of_functions_decide_nothing(function, adds_up):
    class Net(brainstate.nn.Module):
        def init_state(self):
            self.v = brainstate.ParamState(function(brainstate.random.uniform(size=(3, 3))))

    (atom,) = shardinit.discover(Net()).program.outputs[0].atoms
    assert accumulates(atom.equation) == adds_up
