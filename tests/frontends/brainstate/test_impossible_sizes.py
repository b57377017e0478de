"""Sizes that no array can have are an error with the user's line, wherever init uses them."""

import brainstate
import jax
import jax.numpy as jnp
import pytest

from shardinit import ArgumentError, discover

R = brainstate.random
DRAWS = {
    "a state": lambda n: R.uniform(size=(n,)),
    "of two axes": lambda n: R.normal(size=(2, n)),
    "summed": lambda n: R.normal(size=(n,)).sum(),
    "cut": lambda n: R.uniform(size=(n,))[:2],
    "joined": lambda n: jnp.concatenate([R.uniform(size=(n,)), R.uniform(size=(5,))]),
    "in jit": lambda n: jax.jit(lambda key: jax.random.normal(key, (n,)).sum())(R.split_key()),
    "of every lane": lambda n: jax.random.normal(jax.random.key(0), (n,)).sum(),
}


@pytest.mark.parametrize("size", [-3, 2**63])
@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_a_size_that_no_array_can_have_is_refused(draw, size):
    class Net(brainstate.nn.Module):
        def init_state(self):
            self.v = brainstate.ParamState(draw(size))

    with pytest.raises(ArgumentError, match=rf"{size}\] at .*test_impossible_sizes\.py:\d+ .*between 0 and 2\*\*63"):
        discover(Net())


@pytest.mark.parametrize("size", [0, 3])
def test_other_sizes_are_fine(size):
    class Net(brainstate.nn.Module):
        def init_state(self):
            self.v = brainstate.ParamState(R.uniform(size=(size,)))

    assert discover(Net()).specs[0].leaves[0].shape == (size,)
