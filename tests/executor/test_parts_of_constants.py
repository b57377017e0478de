"""Large arrays that init closes over, where single lanes are split: each device gets its part of them, no more."""

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brainstate import ParamState
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import shardinit
from shardinit.executor import produce as run
from tests.conftest import mesh_of
from tests.reference import assert_like_brainstate

TABLE = np.linspace(0.0, 1.0, 512 * 256, dtype=np.float32).reshape(512, 256)
BYTES = TABLE.nbytes
RULE = [("w", ("lanes", "model", None))]


def module_of(make, table=TABLE):
    class Module(brainstate.nn.Module):
        def init_state(self):
            self.w = ParamState(make(table, brainstate.random.uniform(size=(512, 256))))

    return Module


ALIGNED = {
    "arithmetic": lambda table, x: table * 2 + x,
    "jit": lambda table, x: jax.jit(lambda t, x: jnp.where(x > 0.5, t, x))(table, x),
    "closed over by a jit": lambda table, x: jax.jit(lambda x: x - table)(x),
    "alone": lambda table, x: jnp.asarray(table),
}
WHOLE = {
    "rows in another order": lambda table, x: jnp.asarray(table)[::-1] + x,
    "one row": lambda table, x: table[3] + x,
    "a sum": lambda table, x: table.sum() + jnp.asarray(table).sum() + x,
}


def placed_bytes(monkeypatch, module):
    """What a device gets of the arrays from outside, the plan, and the result."""
    most = []
    put = run._put

    def noted(value, sharding):
        made = put(value, sharding)
        if getattr(value, "shape", None) == TABLE.shape:
            most.append(max(shard.data.nbytes for shard in made.addressable_shards))
        return made

    monkeypatch.setattr(run, "_put", noted)
    result = shardinit.shard_new_states(module, axis_size=4, mesh=mesh_of(2, 4), rules=RULE)
    return most, result


@pytest.mark.parametrize("name", ALIGNED)
def test_each_device_gets_its_part(name, monkeypatch):
    def initialize(module):
        most, result = placed_bytes(monkeypatch, module)
        assert most == [BYTES // 4]
        assert max(step.constants for step in result.plan.steps) == BYTES // 4
        return result

    assert_like_brainstate(module_of(ALIGNED[name]), initialize, axis_size=4)


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_read_otherwise_is_whole(name, monkeypatch):
    def initialize(module):
        most, result = placed_bytes(monkeypatch, module)
        assert set(most) <= {BYTES}
        assert max(step.constants for step in result.plan.steps) >= sum(most)
        return result

    assert_like_brainstate(module_of(WHOLE[name]), initialize, axis_size=4)


def test_a_mapped_file_is_read_by_parts(tmp_path, monkeypatch):
    np.save(tmp_path / "table.npy", TABLE)
    table = np.load(tmp_path / "table.npy", mmap_mode="r")
    most, _ = placed_bytes(monkeypatch, module_of(lambda t, x: t + x, table)())
    assert most == [BYTES // 4]


def test_an_array_that_is_sharded_on_the_mesh_stays_where_it_is(monkeypatch):
    table = jax.device_put(TABLE, NamedSharding(mesh_of(2, 4), P("model", None)))
    most, result = placed_bytes(monkeypatch, module_of(lambda t, x: t + x, table)())
    assert most == [BYTES // 4]
    assert result.plan.states[0].leaves[0].partition_spec == ("lanes", "model", None)
