"""Effects under a condition that differs by lane run once for each lane that asks for them."""

import brainstate
import jax
import pytest
from brainstate import ShortTermState
from jax import lax

import shardinit
from tests.conftest import mesh_of

R = brainstate.random


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("axis_size", [1, 8])
def test_each_lane_that_asks_has_its_effect_once(devices, axis_size):
    seen = []

    class Asking(brainstate.nn.Module):
        def init_state(self):
            x = R.normal(size=())
            lax.cond(x > 0, lambda: jax.debug.callback(lambda v: seen.append(float(v)), x), lambda: None)
            self.v = ShortTermState(x)

    brainstate.random.seed(0)
    module = Asking()
    shardinit.shard_new_states(module, axis_size=axis_size, mesh=mesh_of(min(devices, axis_size)))
    jax.effects_barrier()
    assert sorted(seen) == sorted(float(v) for v in module.v.value if v > 0)


def test_the_lane_that_fails_is_the_one_that_is_shown():
    class Failing(brainstate.nn.Module):
        def init_state(self):
            x = R.normal(size=())
            brainstate.transform.jit_error_if(x > 1.0, "too large: {}", x)
            self.v = ShortTermState(x)

    brainstate.random.seed(0)
    module = Failing()
    with pytest.raises(Exception, match="too large: 1"):
        shardinit.shard_new_states(module, axis_size=8, mesh=mesh_of(8))
    assert not hasattr(module, "v")
