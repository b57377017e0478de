"""A budget is kept: the dispatch waits where it must, and the compiler's figures are held against it first."""

import brainstate
import jax.numpy as jnp
import pytest
from brainstate import ParamState

import shardinit
from shardinit.execute import memory, run

R = brainstate.random


class Different(brainstate.nn.Module):
    """Programs that could run side by side."""

    def init_state(self):
        self.a = ParamState(R.normal(size=(1 << 16,)))
        self.b = ParamState(jnp.sort(R.uniform(size=(1 << 16,))))
        self.c = ParamState(R.normal(size=(1 << 15,)) * 2.0)


def planned_with(budget=None):
    program = shardinit.discover(Different())
    return program, shardinit.plan(program, shardinit.Topology("cpu", 8), axis_size=8, memory_budget=budget)


def waits_of(monkeypatch, budget):
    pacers = []

    class Noted(memory.Pacer):
        def __init__(self, plan):
            super().__init__(plan)
            pacers.append(self)

    monkeypatch.setattr(run, "Pacer", Noted)
    program, planned = planned_with(budget)
    shardinit.execute(shardinit.compile(program, planned))
    return pacers[0].waits


def test_the_dispatch_waits_only_where_what_runs_side_by_side_would_not_fit(monkeypatch):
    peak = planned_with()[1].peak_bytes
    assert waits_of(monkeypatch, None) == 0
    assert waits_of(monkeypatch, 10 * peak) == 0
    assert waits_of(monkeypatch, peak) == 2


def test_what_the_compiler_needs_beyond_the_budget_is_refused_before_anything_runs(monkeypatch):
    monkeypatch.setattr(memory, "compiled_bytes", lambda executable: 3 << 20)
    program, planned = planned_with(planned_with()[1].peak_bytes)
    done = []
    with pytest.raises(shardinit.MemoryBudgetError, match=r"planned=.*compiled=3\.0 MiB.*memory_budget=.*Raise"):
        shardinit.execute(shardinit.compile(program, planned), progress=lambda *of: done.append(of))
    assert done == []


@pytest.mark.parametrize("error", [AttributeError, NotImplementedError])
def test_a_compiler_that_tells_nothing_leaves_the_plan_in_force(error):
    class Executable:
        def memory_analysis(self):
            raise error

    assert memory.compiled_bytes(Executable()) is None


def test_the_receipt_says_the_peak_or_that_it_was_not_measured():
    result = shardinit.shard_new_states(Different(), axis_size=8)
    assert result.receipt.peak_bytes == {}
    assert result.receipt.planned_peak_bytes == result.plan.peak_bytes
    assert "peak not measured" in str(result)
