"""States, topologies and a module that the tests of rules, budgets and texts share."""

import brainstate
import jax.numpy as jnp

from shardinit import (
    LeafSpec,
    NonBatchState,
    StateSpec,
    Topology,
)

MIB = 1 << 20
CPU = Topology("cpu", 8)


def state(path, *shape, out_axis=0, kind="ParamState", tags=()):
    leaf = LeafSpec(shape, "float32", 4, False, out_axis is not None)
    return StateSpec(tuple(path.split("/")), kind, (leaf,), out_axis, tags)


SPECS = [
    state("layers/0/weight", 16, 24, tags=("frozen",)),
    state("layers/0/bias", 24),
    state("layers/1/weight", 24, 8),
    state("layers/1/bias", 8, kind="HiddenState", tags=("fast", "frozen")),
    state("scale", 4, out_axis=None, kind="NonBatchState"),
]


class Net(brainstate.nn.Module):
    def init_state(self):
        self.weight = brainstate.ParamState(brainstate.random.normal(size=(16, 24)))
        self.v = brainstate.HiddenState(brainstate.random.uniform(size=(24,)), tag="membrane")
        self.count = brainstate.ShortTermState(jnp.zeros((3,)))
        self.shared = NonBatchState(jnp.zeros((4,)))
