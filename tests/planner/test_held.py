"""What the plan says that a device holds, beside what it holds."""

import gc

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brainstate import ParamState

import shardinit
from shardinit.executor import produce as run

R = brainstate.random


def held_by(device):
    """Bytes of all live arrays on a device; several arrays may stand for one buffer."""
    arrays = [a for a in jax.live_arrays() if not jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key)]
    shards = [s.data for a in arrays for s in a.addressable_shards if s.device == device]
    return sum({d.unsafe_buffer_pointer(): d.nbytes for d in shards}.values())


class Init(brainstate.nn.Module):
    def __init__(self, init):
        super().__init__()
        self._init = init

    def init_state(self):
        self._init(self)


@pytest.fixture
def measured(monkeypatch):
    """Initialize; return the plan, the most bytes that a device came to hold, and what it holds in the end."""
    device = jax.devices()[5]  # arrays that existed are on the first
    finish = run._Runner.finish

    def measure(init, **options):
        gc.collect()
        before, found = held_by(device), [0]

        def look_and_finish(*args):
            found.append(held_by(device) - before)
            finish(*args)

        monkeypatch.setattr(run._Runner, "finish", look_and_finish)
        module = Init(init)
        result = shardinit.shard_new_states(module, **options)
        gc.collect()  # on jax 0.10.0 an array whose shards were looked at holds itself
        return result.plan, max(found), held_by(device) - before

    return measure


def closes_over(size, count=1):
    arrays = [np.arange(size, dtype=np.float32) + i for i in range(count)]

    def init(m):
        for i, array in enumerate(arrays):
            setattr(m, f"w{i}", ParamState(jnp.asarray(array) * 2 + R.uniform(size=(size,))))

    return init


@pytest.mark.parametrize("axis_size", [8, 16, 1])
def test_an_array_that_init_closes_over_is_in_the_plan(measured, axis_size):
    planned, most, after = measured(closes_over(1 << 18), axis_size=axis_size)
    parts = 8 if axis_size == 1 else 1  # one lane is split over the devices, and so is what goes into it
    assert planned.constant_bytes == (1 << 20) // parts
    assert most <= planned.peak_bytes
    assert most >= planned.bytes_per_device + planned.constant_bytes
    assert after == planned.bytes_per_device  # it is dropped as soon as its last reader ran


def test_arrays_that_init_closes_over_come_and_go_one_after_the_other(measured):
    planned, most, after = measured(closes_over(1 << 18, 4), axis_size=8)
    assert planned.constant_bytes == 1 << 20
    assert planned.bytes_per_device + (1 << 20) <= most <= planned.peak_bytes
    assert after == planned.bytes_per_device


def test_an_array_that_many_read_is_placed_once_and_stays_until_the_last_has_run(measured):
    array = jnp.arange(1 << 18, dtype=jnp.float32)

    def init(m):
        m.a = ParamState(array + R.uniform(size=(1 << 18,)))
        m.b = ParamState(R.normal(size=(1 << 18,)) * array)
        m.c = ParamState(array * R.normal(size=(1 << 18,)) + array)

    planned, most, after = measured(init, axis_size=8)
    assert planned.constant_bytes == 1 << 20
    assert most <= planned.peak_bytes
    assert after == planned.bytes_per_device


def test_an_array_that_init_closes_over_is_in_the_certificate():
    program = shardinit.discover(Init(closes_over(1 << 18, 2)))
    planned = shardinit.plan(program, "cpu:8", axis_size=8)
    certificate = planned.certify()
    assert certificate.passed
    assert certificate.prediction_holds
    assert certificate.predicted_peak_bytes == planned.peak_bytes
    assert certificate.peak_bytes > 3 << 20


def test_an_array_that_init_closes_over_counts_against_the_budget():
    table = jnp.arange(1 << 18, dtype=jnp.float32)

    def init(m):  # in another order, so that no part of it is enough
        m.w = ParamState(table[::-1] * 2 + R.uniform(size=table.shape))

    program = shardinit.discover(Init(init))
    free = shardinit.plan(program, "cpu:8", axis_size=8)
    with pytest.raises(shardinit.MemoryBudgetError):
        shardinit.plan(program, "cpu:8", axis_size=8, memory_budget=free.bytes_per_device + (1 << 20) - 1)
    assert shardinit.plan(program, "cpu:8", axis_size=8, memory_budget=free.peak_bytes).peak_bytes == free.peak_bytes
    assert "1.0 MiB that init closes over" in str(free)


@pytest.mark.parametrize("count", [3, 60])
def test_tables_of_keys_and_literals_are_in_the_plan(measured, count):
    def init(m):
        for i in range(count):
            setattr(m, f"s{i}", ParamState(R.normal(size=(8,)) * (i + 0.5)))

    planned, most, after = measured(init, axis_size=64)
    assert most <= planned.peak_bytes
    assert after == planned.bytes_per_device
