"""On a CPU last bits depend on how many elements are computed at once: right values, or a note."""

import sys

import brainstate
import jax.numpy as jnp
import pytest
from brainstate import ParamState

import shardinit
from shardinit.plan import rounding
from tests.conftest import mesh_of
from tests.modules import Normalized
from tests.reference import assert_like_brainstate


class Small(brainstate.nn.Module):
    def init_state(self):
        self.a = ParamState(jnp.exp(brainstate.random.uniform(size=(3,))))
        self.b = ParamState(brainstate.random.normal(size=(4,)))
        self.c = ParamState(jnp.tanh(brainstate.random.uniform(size=(5,))))


@pytest.mark.parametrize("shape", [(8,), (2, 4)], ids=str)
def test_small_pieces_are_computed_whole(shape):
    def initialize(module):
        result = shardinit.shard_new_states(module, axis_size=8, mesh=mesh_of(*shape))
        assert {step.rounding for step in result.plan.steps if step.pieces} == {"whole"}
        assert set(result.receipt.measured_bytes.values()) == {result.plan.bytes_per_device}
        assert not any("vectors" in note for note in result.receipt.notes)
        return result

    assert_like_brainstate(Small, initialize, axis_size=8)


def test_on_one_device_nothing_is_split():
    result = shardinit.shard_new_states(Normalized(), axis_size=3)
    assert {step.rounding for step in result.plan.steps if step.pieces} <= {"same", "whole"}


def test_what_is_too_large_for_that_is_named(monkeypatch):
    monkeypatch.setattr(sys.modules["shardinit.plan.planner"], "MOST_WHOLE", 8)
    result = shardinit.shard_new_states(Small(), axis_size=8, mesh=mesh_of(8))
    (note,) = [note for note in result.receipt.notes if "vectors" in note]
    assert all(f" {name}" in note for name in "abc")
    assert str(rounding.VECTOR) in note


def test_a_plan_of_specs_alone_names_them_too():
    module = Small()
    program = shardinit.discover(module)
    planned = shardinit.plan(program.specs, shardinit.Topology("cpu", 8), axis_size=8)
    assert any("vectors" in note for note in shardinit.compile(program, planned).notes)
