"""States that init creates and drops again are in the dictionary, as in brainstate's."""

import brainstate
import numpy as np

import shardinit
from shardinit.executor.produce import produce
from shardinit.executor.receipt import shared_digests


class Net(brainstate.nn.Module):
    def init_state(self):
        self.w = brainstate.ParamState(brainstate.random.normal(size=(3,)))
        self.w = brainstate.ParamState(brainstate.random.normal(size=(3,)))
        passing = brainstate.HiddenState(brainstate.random.normal(size=(2,)))
        self.v = brainstate.HiddenState(passing.value * 2)


def states_of(function):
    brainstate.random.seed(3)
    module = Net()
    (states,) = function(module, {}, axis_size=4).values()
    return module, states


def test_dropped_states_are_in_the_dictionary_as_in_brainstate():
    module, ours = states_of(shardinit.vmap2_new_states)
    _, theirs = states_of(brainstate.transform.vmap2_new_states)
    assert [type(s) for s in ours] == [type(s) for s in theirs]
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one.value, other.value)
    assert [s is module.w or s is module.v for s in ours] == [False, True, False, True]


def test_dropped_states_are_said_to_be_held_by_nothing():
    names = [spec.name for spec in shardinit.discover(Net()).specs]
    assert names == ["(not held by the module)", "w", "(not held by the module)", "v"]


def test_dropped_states_that_all_lanes_share_are_compared_one_by_one():
    """Processes compare what they all hold: three states without a name are three values."""

    class Dropping(brainstate.nn.Module):
        def init_state(self):
            self.v = brainstate.ShortTermState(brainstate.random.normal(size=(2,)))
            for number in range(3):
                brainstate.HiddenState(np.full(2, number, np.float32))

    axes = {None: lambda path, state: isinstance(state, brainstate.HiddenState)}
    traced = shardinit.discover(Dropping(), state_out_axes=axes)
    compiled = shardinit.compile(traced, shardinit.plan(traced, "cpu:8", axis_size=8))
    made = produce(compiled, traced.sink.keys())
    assert len(shared_digests(traced.program, made.values)) == 3
