"""A budget is kept: the dispatch waits where it must, and the compiler's figures are held against it first."""

import types

import brainstate
import jax
import jax.numpy as jnp
import pytest
from brainstate import ParamState

import shardinit
from shardinit.executor import memory, produce, receipt

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

    monkeypatch.setattr(produce, "Pacer", Noted)
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


def test_a_compiler_that_tells_nothing_leaves_the_plan_in_force_and_is_named(monkeypatch):
    """JAX documents None for backends that cannot tell."""
    monkeypatch.setattr(jax.stages.Compiled, "memory_analysis", lambda executable: None)
    for budget, named in ((None, False), (planned_with()[1].peak_bytes, True)):
        program, planned = planned_with(budget)
        result = shardinit.execute(shardinit.compile(program, planned))
        assert any("memory_budget was compared with the plan alone" in n for n in result.receipt.notes) == named


def test_the_receipt_says_the_peak_or_that_it_was_not_measured():
    result = shardinit.shard_new_states(Different(), axis_size=8)
    assert result.receipt.peak_bytes == {}
    assert result.receipt.planned_peak_bytes == result.plan.peak_bytes
    assert "peak not measured" in str(result)


def test_where_it_waits_everything_before_has_run(monkeypatch):
    """The planned order is the real one: after a wait no piece of before is still running."""
    made, seen = [], []
    finish, before = produce._Runner.finish, memory.Pacer.before

    def noted_finish(self, program, instance, outputs):
        made.extend(outputs)
        finish(self, program, instance, outputs)

    def noted_before(self, piece, wait):
        waits = self.waits
        before(self, piece, wait)
        if self.waits > waits:
            seen.append([value.is_ready() for value in made])

    monkeypatch.setattr(produce._Runner, "finish", noted_finish)
    monkeypatch.setattr(memory.Pacer, "before", noted_before)
    program, planned = planned_with(planned_with()[1].peak_bytes)
    shardinit.execute(shardinit.compile(program, planned))
    assert seen == [[True], [True, True]]


def test_the_peak_that_a_backend_tells_is_in_the_receipt(monkeypatch):
    class Device:
        def __init__(self, name, stats):
            self.name, self.stats = name, stats

        def __str__(self):
            return self.name

        def memory_stats(self):
            return self.stats

    devices = [Device("gpu:0", {"peak_bytes_in_use": 3 << 20}), Device("gpu:1", {"peak_bytes_in_use": 5 << 20})]
    devices.append(Device("cpu:0", None))
    mesh = types.SimpleNamespace(local_devices=devices)
    monkeypatch.setattr(receipt, "measured_peaks", lambda _: memory.measured_peaks(mesh))
    program, planned = planned_with()
    result = shardinit.execute(shardinit.compile(program, planned))
    assert result.receipt.peak_bytes == {"gpu:0": 3 << 20, "gpu:1": 5 << 20}
    assert "peak 5.0 MiB, planned" in str(result)


class Linked(brainstate.nn.Module):
    """Pieces of one program, each of which has more held beside it than the one before."""

    def init_state(self):
        for number in range(6):
            w = R.normal(size=(64, 64))
            total = w.sum(axis=1, keepdims=True)
            setattr(self, f"w{number}", ParamState(w / total))
            setattr(self, f"s{number}", ParamState(w * total))


def test_the_compilers_figures_are_compared_at_the_fullest_moment(monkeypatch):
    program = shardinit.discover(Linked())
    topology = shardinit.Topology("cpu", 8)
    budget = shardinit.plan(program, topology, axis_size=64, memory_budget="unlimited").peak_bytes
    compiled = shardinit.compile(program, shardinit.plan(program, topology, axis_size=64, memory_budget=budget))
    real = memory.compiled_bytes
    monkeypatch.setattr(memory, "compiled_bytes", lambda executable: real(executable) + 100_000)
    with pytest.raises(shardinit.MemoryBudgetError, match="compiler needs more"):
        shardinit.execute(compiled)
