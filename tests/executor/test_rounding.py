"""On a CPU last bits depend on how many elements are computed at once: right values, or a note."""

import sys

import brainstate
import jax
import jax.numpy as jnp
import pytest
from brainstate import ParamState
from jax.sharding import AbstractMesh, AxisType

import shardinit
from shardinit.backend.private_jax import entered
from shardinit.compiler.grouping import group
from shardinit.compiler.strategies import layout_of, piece_program
from shardinit.planner import rounding
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
    monkeypatch.setattr(sys.modules["shardinit.planner.search"], "MOST_WHOLE", 8)
    result = shardinit.shard_new_states(Small(), axis_size=8, mesh=mesh_of(8))
    (note,) = [note for note in result.receipt.notes if "vectors" in note]
    assert all(f" {name}" in note for name in "abc")
    assert str(rounding.VECTOR) in note


@pytest.mark.parametrize("devices", [1, 8])
def test_a_plan_of_specs_alone_has_eager_values(devices):
    """It gets the program's steps when it is compiled, and with them how each piece rounds."""

    def initialize(module):
        program = shardinit.discover(module)
        planned = shardinit.plan(program.specs, shardinit.Topology("cpu", devices), axis_size=8)
        return shardinit.execute(shardinit.compile(program, planned))

    _, result = assert_like_brainstate(Small, initialize, axis_size=8)
    assert result.plan.of_program
    assert not any("vectors" in note for note in result.receipt.notes)


@pytest.mark.parametrize(("topology", "conditionals"), [("cpu:8", True), ("h100:1x8", False)])
def test_loops_of_their_own_are_for_a_cpu_alone(topology, conditionals):
    """On a GPU a conditional would wait for the host, and its memory is not what is planned for one there."""
    with jax.default_prng_impl("rbg"):  # every device computes all lanes, on every platform
        brainstate.random.seed(0)
        plan = shardinit.plan(shardinit.discover(Small()), topology, axis_size=8)
    mesh = AbstractMesh((8,), ("lanes",), axis_types=(AxisType.Auto,))
    with entered(plan.program.settings):
        grouped = group(plan.program, plan, mesh)
        made = [piece_program(p, grouped.work.tables, layout_of(p, grouped.layout)) for p in grouped.programs]
    assert {program.way.rounding for program in grouped.programs} == {"whole"}
    assert {" cond[" in str(jitted.trace(*arguments).jaxpr) for jitted, arguments in made} == {conditionals}
