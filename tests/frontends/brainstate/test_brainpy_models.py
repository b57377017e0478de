"""Every model of brainpy.state that can be built from a size alone, against brainstate's own init."""

import brainpy.state
import brainstate
import brainunit as u
import numpy as np
import pytest

import shardinit
from tests.reference import assert_same

brainstate.environ.set(dt=0.1 * u.ms)


def _buildable():
    for name in sorted(dir(brainpy.state)):
        model = getattr(brainpy.state, name)
        if isinstance(model, type) and hasattr(model, "init_all_states"):
            try:
                brainstate.transform.vmap2_new_states(model(4), {}, axis_size=2)
            except Exception:
                continue
            yield model


MODELS = list(_buildable())


def test_there_are_models():
    assert len(MODELS) > 30  # 37 in brainpy 2.9, more than 150 in 2.8


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.__name__)
def test_model(model):
    brainstate.random.seed(3)
    np.random.seed(0)
    expected = brainstate.transform.vmap2_new_states(model(4), {}, axis_size=8)
    brainstate.random.seed(3)
    np.random.seed(0)
    found = shardinit.shard_new_states(model(4), axis_size=8).states
    assert list(found) == list(expected)
    for axis in expected:
        for mine, theirs in zip(found[axis], expected[axis], strict=True):
            assert_same(mine.value, theirs.value)
