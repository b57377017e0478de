"""A plan from JSON belongs to the program it was made for."""

import dataclasses

import brainstate
import jax
import pytest

import shardinit
from shardinit.spec.plan import InitPlan

R = brainstate.random


class Net(brainstate.nn.Module):
    def __init__(self, draw, scale=0.5):
        super().__init__()
        self.draw, self.scale = draw, scale

    def init_state(self):
        self.first = brainstate.ParamState(R.uniform(size=(3,)))
        self.second = brainstate.ParamState(self.draw(size=(3,)) * self.scale)


def test_a_plan_of_other_code_is_an_error_that_names_the_state():
    planned = shardinit.plan(shardinit.discover(Net(R.uniform)), "cpu:8", axis_size=8)
    again = InitPlan.from_json(planned.to_json())
    assert again == planned
    shardinit.compile(shardinit.discover(Net(R.uniform)), again)
    for other in (Net(R.normal), Net(R.uniform, 0.25)):
        with pytest.raises(shardinit.PlanError, match=r"another program: init makes second .*1 of 2 states"):
            shardinit.compile(shardinit.discover(other), again)
    with jax.threefry_partitionable(False):
        other = shardinit.discover(Net(R.uniform))
    with pytest.raises(shardinit.PlanError, match="first, second"):
        shardinit.compile(other, again)


def test_a_plan_with_steps_of_another_cut_is_an_error():
    program = shardinit.discover(Net(R.uniform))
    planned = shardinit.plan(program, "cpu:8", axis_size=8, memory_budget="unlimited")
    with pytest.raises(shardinit.PlanError, match="steps are not those of this program"):
        shardinit.compile(program, dataclasses.replace(planned, steps=planned.steps[:-1]))
