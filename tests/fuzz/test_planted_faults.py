"""A search of a few programs finds each kind of fault, once it is there."""

from unittest import mock

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from shardinit.api import execute as execution
from shardinit.executor import produce
from shardinit.frontends.brainstate.sink import ModuleSink
from shardinit.lane.key_rule import Split
from tests.fuzz.compare import Target
from tests.fuzz.search import Search


def search():
    return Search((Target((8, 1), "auto"),), most=1, sizes=(8,), settings=(), slow=False).chunk(3, 8, shrink=False)


def is_floats(value):
    return isinstance(value, jax.Array) and value.dtype == jnp.float32 and value.size


def made_otherwise(change):
    """Change every array of 32-bit floats that a run makes."""
    real = execution.produce

    def changed(*arguments):
        made = real(*arguments)
        made.values = [change(v) if is_floats(v) else v for v in made.values]
        return made

    return mock.patch.object(execution, "produce", changed)


def one_place_off(value):
    last = (-1,) * value.ndim
    return value.at[last].set(jnp.nextafter(value[last], jnp.float32(9.0)))


def weak(value):
    return lax.convert_element_type_p.bind(value, new_dtype=value.dtype, weak_type=True, sharding=None)


def on_every_device(value):
    return jax.device_put(value, NamedSharding(value.sharding.mesh, PartitionSpec()))


def wrong_key_of_one_lane():
    real = produce._Runner.key_table
    return mock.patch.object(produce._Runner, "key_table", lambda *a: real(*a).at[:, 3, 0].add(1))


def wrong_key_afterwards():
    return mock.patch.object(Split, "key_after", lambda rule, key: key)


def wrong_tags():
    real = ModuleSink.states_by_axis

    def changed(sink):
        for group in real(sink).values():
            group[-1].tag = "wrong"
        return real(sink)

    return mock.patch.object(ModuleSink, "states_by_axis", changed)


FAULTS = {
    "a wrong key for one lane": (wrong_key_of_one_lane, "eager ["),
    "two lanes changed places": (lambda: made_otherwise(lambda v: jnp.roll(v, 1, axis=0)), "eager ["),
    "off by one in the last place": (lambda: made_otherwise(one_place_off), "eager ["),
    "a wrong dtype": (lambda: made_otherwise(lambda v: v.astype(jnp.bfloat16)), "'bfloat16', False"),
    "a wrong weak type": (lambda: made_otherwise(weak), "'float32', True"),
    "more bytes on a device than planned": (lambda: made_otherwise(on_every_device), "planned"),
    "a wrong random state afterwards": (wrong_key_afterwards, "keys DEFAULT"),
    "a wrong tag": (wrong_tags, "tag 'wrong'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_search_finds(fault):
    plant, shown = FAULTS[fault]
    with plant():
        assert shown in (search() or "")


def test_without_a_fault_it_finds_nothing():
    assert search() is None
