"""A program with a named axis is for the number of lanes that its collectives saw."""

import brainstate
import jax
import numpy as np
import pytest
from brainstate import ShortTermState

import shardinit


class Sees(brainstate.nn.Module):
    """The number of lanes as a Python number, in an array, and in a shape."""

    def init_state(self):
        lanes = jax.lax.psum(1, "i")
        self.scaled = ShortTermState(np.float32(2.0) * lanes)
        self.share = ShortTermState(brainstate.random.normal(size=(3,)) / jax.lax.axis_size("i"))
        self.table = ShortTermState(jax.numpy.zeros(lanes))


CPU8 = shardinit.Topology("cpu", 8)


def test_the_named_axis_has_the_number_of_lanes_that_is_planned():
    program = shardinit.discover(Sees(), axis_name="i", axis_size=8)
    assert (program.program.axis_name, program.program.axis_size) == ("i", 8)
    module = program.objects[0]
    shardinit.execute(shardinit.compile(program, shardinit.plan(program, CPU8, axis_size=8)))
    np.testing.assert_array_equal(module.value, np.full(8, 16.0))


def test_a_name_without_a_size_is_refused():
    with pytest.raises(shardinit.ArgumentError, match="axis_name='i' needs axis_size"):
        shardinit.discover(Sees(), axis_name="i")


@pytest.mark.parametrize(("size", "error"), [(0, ValueError), (2.0, TypeError), (True, TypeError)])
def test_a_size_that_is_none_is_refused(size, error):
    with pytest.raises(error, match="axis_size="):
        shardinit.discover(Sees(), axis_name="i", axis_size=size)


def test_another_size_is_refused_by_plan_and_compile():
    for_4, for_8 = (shardinit.discover(Sees(), axis_name="i", axis_size=n) for n in (4, 8))
    with pytest.raises(shardinit.PlanError, match=r"axis_size=4.*axis_size=8.*Call discover again"):
        shardinit.plan(for_4, CPU8, axis_size=8)
    planned = shardinit.plan(for_8, CPU8, axis_size=8)
    with pytest.raises(shardinit.PlanError, match=r"axis_size=4.*axis_size=8.*Call discover again"):
        shardinit.compile(for_4, planned)


def test_without_a_name_a_program_is_for_any_number_of_lanes():
    class Plain(brainstate.nn.Module):
        def init_state(self):
            self.v = ShortTermState(brainstate.random.normal(size=(3,)))

    program = shardinit.discover(Plain(), axis_size=4)
    assert program.program.axis_size is None
    assert shardinit.plan(program, CPU8, axis_size=16).axis_size == 16


@pytest.mark.parametrize("axis_size", [4, 8, 16])
def test_pmap2_sees_the_number_of_lanes(axis_size):
    module = Sees()
    shardinit.pmap2_new_states(module, {}, axis_size=axis_size, axis_name="i")
    np.testing.assert_array_equal(module.scaled.value, np.full(axis_size, 2.0 * axis_size))
    assert module.table.value.shape == (axis_size, axis_size)

    @brainstate.transform.jit
    def inside():
        inner = Sees()
        shardinit.pmap2_new_states(inner, {}, axis_size=axis_size, axis_name="i")
        return inner.scaled.value

    np.testing.assert_array_equal(inside(), np.full(axis_size, 2.0 * axis_size))
