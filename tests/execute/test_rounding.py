"""On a CPU last bits depend on how many elements are computed at once: right values, or a note."""

import sys

import brainstate
import jax
import jax.numpy as jnp
import pytest
from brainstate import ParamState
from jax.sharding import AbstractMesh, AxisType

import shardinit
from shardinit.compile.compiler import layout_for, prepare
from shardinit.compile.lowering import piece_program
from shardinit.plan import rounding
from shardinit.private_jax import entered
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
    assert {step.rounding for step in result.plan.steps if step.pieces} <= {"same", "apart", "whole"}


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


def test_a_plan_of_specs_alone_on_one_device_has_eager_values():
    def initialize(module):
        program = shardinit.discover(module)
        planned = shardinit.plan(program.specs, shardinit.Topology("cpu", 1), axis_size=8)
        return shardinit.execute(shardinit.compile(program, planned))

    assert_like_brainstate(Small, initialize, axis_size=8)


@pytest.mark.parametrize(("topology", "conditionals"), [("cpu:8", True), ("h100:1x8", False)])
def test_loops_of_their_own_are_for_a_cpu_alone(topology, conditionals):
    """On a GPU a conditional would wait for the host, and its memory is not what is planned for one there."""
    with jax.default_prng_impl("rbg"):  # every device computes all lanes, on every platform
        brainstate.random.seed(0)
        plan = shardinit.plan(shardinit.discover(Small()), topology, axis_size=8)
    mesh = AbstractMesh((8,), ("lanes",), axis_types=(AxisType.Auto,))
    with entered(plan.program.settings):
        work, layout, unique, _ = prepare(plan.program, plan, mesh)
        made = [piece_program(program, work.tables, layout_for(program, layout)) for program in unique]
    assert {program.rounding for program in unique} == {"whole"}
    assert {" cond[" in str(jitted.trace(*arguments).jaxpr) for jitted, arguments in made} == {conditionals}
