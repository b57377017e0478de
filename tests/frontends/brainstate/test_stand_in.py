"""Whatever a concrete ``jax.Array`` can do, what stands for it inside init can do, with the same outcome."""

import copy
import pickle
import re
import sys
from collections.abc import Iterator
from typing import Any

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brainstate import ParamState

import shardinit

R = brainstate.random
ARRAYS = {
    "numbers": lambda: jnp.linspace(3.0, 1.0, 6).reshape(2, 3) * 1,
    "integers": lambda: jnp.arange(5) * 1,
    "one number": lambda: jnp.asarray(1.5) * 1,
    "one integer": lambda: jnp.array(3, jnp.int8) * 1,
    "one truth": lambda: jnp.array(1) > 0,
    "complex": lambda: jnp.asarray([1 + 2j]) * 1,
    "half": lambda: jnp.ones(3, jnp.bfloat16) * 2,
    "none": lambda: jnp.zeros((0, 2)) * 1,
    "keys": lambda: jax.random.split(jax.random.key(3), 2),
    "one key": lambda: jax.random.key(3),
}
# How classes and instances are made, and what ``memoryview`` is for.
OF_CLASSES = frozenset(
    {"__abstractmethods__", "__annotations__", "__buffer__", "__class__", "__class_getitem__", "__del__", "__delattr__"}
    | {"__dir__", "__doc__", "__firstlineno__", "__getattr__", "__getattribute__", "__getstate__", "__init__"}
    | {"__init_subclass__", "__module__", "__new__", "__orig_bases__", "__parameters__", "__release_buffer__"}
    | {"__setattr__", "__sizeof__", "__slotnames__", "__slots__", "__static_attributes__", "__subclasshook__"}
    | {"__type_params__", "__weakref__", "_abc_impl"}
)
ARITHMETIC = (
    "add",
    "sub",
    "mul",
    "truediv",
    "floordiv",
    "mod",
    "divmod",
    "pow",
    "and",
    "or",
    "xor",
    "lshift",
    "rshift",
)
# What a member is called with, if not with nothing.
ARGUMENTS: dict[str, Any] = {
    **{f"__{side}{name}__": (2,) for name in ARITHMETIC for side in ("", "r")},
    **{f"__{name}__": (2,) for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    **{f"__{side}matmul__": (np.ones((3, 2)),) for side in ("", "r")},
    **{"__contains__": (1.0,), "__getitem__": (0,), "__setitem__": (0, 1), "__deepcopy__": ({},), "__format__": ("",)},
    **{"__reduce_ex__": (4,), "__array_module__": ((),), "addressable_data": (0,), "argpartition": (1,), "take": (0,)},
    **{"astype": (jnp.float16,), "choose": ([np.arange(8)] * 8,), "clip": (0, 2), "dot": (2,), "repeat": (2,)},
    **{"compress": (np.array([True]),), "reshape": (-1,), "searchsorted": (1,), "swapaxes": (0, 0), "_split": (1,)},
    **{"view": (jnp.uint8,), "_multi_slice": ((0,), (1,), (False,))},
}


def use(x: Any, name: str) -> Any:
    """Get a member, and call it where it can be called."""
    found = getattr(x, name)
    if name == "at":
        return found[0].set(1)
    if name == "to_device":
        return found(jax.devices()[0])
    return found(*ARGUMENTS.get(name, ())) if callable(found) else found


def attempt(of, x: Any) -> Any:
    try:
        return of(x)
    except Exception as error:
        return error


def outcome(of, x: Any) -> Any:
    """Say what came of it, in terms that can be compared."""
    return attempt(lambda x: told(of(x)), x)


def told(value: Any) -> Any:
    if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        return ("keys", str(value.dtype), told(jax.random.key_data(value)))
    if isinstance(value, jax.Array):
        return ("array", value.shape, str(value.dtype), value.weak_type, np.asarray(value).tobytes())
    if isinstance(value, np.ndarray):
        return ("NumPy array", value.shape, str(value.dtype), value.flags.writeable, value.tobytes())
    if isinstance(value, memoryview):
        return ("memory", value.format, value.shape, value.readonly, value.tobytes())
    if isinstance(value, (list, tuple, Iterator)):
        return (type(value).__name__ if isinstance(value, (list, tuple)) else "iterator", *map(told, value))
    if hasattr(value, "replica_id"):
        return ("shard", value.device, value.index, told(value.data))
    if isinstance(value, (bool, int, float, complex, str, bytes, type(None), np.generic, set, jax.sharding.Sharding)):
        return (type(value), repr(value))
    return ("an object", type(value))


def discover(init):
    class Once(brainstate.nn.Module):
        def init_state(self):
            init(self)

    return shardinit.discover(Once())


def outcomes_inside_init(asked, make):
    """Ask inside init, each time a new stand-in; the outcomes, by what was asked."""
    found = {}

    def init(m):
        m.w = ParamState(R.normal(size=(3,)))
        found.update({name: outcome(of, make()) for name, of in asked.items()})

    discover(init)
    return found


def members(x: Any) -> dict[str, Any]:
    names = sorted(set(dir(type(x))) - OF_CLASSES)
    return {name: (lambda x, name=name: use(x, name)) for name in names}


WAYS = {
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
    "copy": copy.copy,
    "deepcopy": lambda x: copy.deepcopy({"a": [x]})["a"][0],
    "dlpack": lambda x: np.from_dlpack(x),
    "dlpack to JAX": lambda x: jnp.from_dlpack(x),
    "bytes": bytes,
    "NumPy": np.asarray,
    "NumPy copy": np.array,
    "str": str,
    "repr": repr,
    "print": lambda x: f"{x} {x!r} {x!s}",
    "format": lambda x: f"{x:.2f}",
    "percent": lambda x: "%s" % x,  # noqa: UP031
    "hash": hash,
    "list": list,
    "range": lambda x: list(range(x)),
    "round": round,
    "divmod": lambda x: divmod(x, 2),
    "in": lambda x: 2 in x,
    "float": float,
    "truth": bool,
    "attribute": lambda x: (setattr(x, "note", 3), x.note)[1],
    "ready": lambda x: jax.block_until_ready(x),
    "deleted": lambda x: (x.delete(), x.is_deleted()),
    "an instance": lambda x: isinstance(x, jax.Array),
}
if sys.version_info >= (3, 12):  # before, no class of Python's own can be a buffer
    WAYS |= {"memoryview": memoryview, "frombuffer": lambda x: np.frombuffer(x, np.uint8), "bytearray": bytearray}


def assert_as_in_eager(make, asked):
    expected = {name: outcome(of, make()) for name, of in asked.items()}
    found = outcomes_inside_init(asked, make)
    for name, in_eager in expected.items():
        if name in ("__reduce_ex__", "unsafe_buffer_pointer"):
            assert type(found[name]) is type(in_eager)
        elif not isinstance(in_eager, Exception):
            assert found[name] == in_eager, name


@pytest.mark.parametrize("name", ["numbers", "one key"])
def test_every_member_of_an_array_that_all_lanes_share(name):
    assert_as_in_eager(ARRAYS[name], members(ARRAYS[name]()))


@pytest.mark.parametrize("make", ARRAYS.values(), ids=ARRAYS)
def test_ways_to_use_an_array_that_all_lanes_share(make):
    assert_as_in_eager(make, WAYS)


def test_the_text_of_a_large_array_leaves_its_numbers_out():
    assert_as_in_eager(lambda: jnp.zeros((600, 600)) + 1, {"str": str, "repr": repr})


def test_an_array_that_differs_by_lane():
    """What JAX's own mapped values refuse is refused by name; what they can do works."""
    asked = members(jnp.ones(3)) | WAYS
    expected = {}

    def lane(key):
        x = jax.random.normal(key, (2, 3))
        expected.update({name: attempt(of, x) for name, of in asked.items()})

    jax.vmap(lane)(jax.random.split(jax.random.key(0), 2))
    found = {}

    def init(m):
        drawn = R.normal(size=(2, 3))
        m.w = ParamState(drawn)
        found.update({name: attempt(of, drawn) for name, of in asked.items()})

    discover(init)
    refusals = (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError)
    for name, in_eager in expected.items():
        ours = found[name]
        if not isinstance(in_eager, Exception):
            assert not isinstance(ours, Exception), name
        if isinstance(in_eager, refusals):
            assert isinstance(ours, shardinit.ConcreteValueError), name
        if isinstance(ours, refusals):
            assert re.search(r"differs by lane.* at .*test_stand_in\.py:\d+", str(ours)), name


def test_where_a_value_that_differs_by_lane_is_cannot_be_asked():
    def init(m):
        drawn = R.normal(size=(2, 3))
        assert not hasattr(drawn, "sharding")
        assert getattr(drawn, "device", None) is None
        with pytest.raises(shardinit.ConcreteValueError, match=r"\.sharding at .*test_stand_in\.py"):
            drawn.sharding  # noqa: B018
        with pytest.raises(AttributeError, match="differs by lane"):
            drawn.copy_to_host_async()
        m.w = ParamState(drawn)

    discover(init)


def test_jax_asks_without_computing_the_value():
    def init(m):
        table = jnp.arange(1000.0) * 2
        like = jnp.zeros_like(table) + jnp.full_like(table, 2.0) + jnp.array(table) + table.astype(jnp.float32)
        jax.block_until_ready(table)
        m.w = ParamState(jax.jit(lambda x: x + 1)(like) + R.normal(size=(1000,)))

    assert not any("evaluated on the way" in note for note in discover(init).notes)


def test_a_deleted_array_is_not_used():
    def init(m):
        table = jnp.arange(3.0) * 2
        m.made_before = ParamState(table + R.normal(size=(3,)))
        table.delete()
        table + 1

    with pytest.raises(shardinit.DeletedArrayError, match=r"float32\[3\], at .*test_stand_in\.py") as caught:
        discover(init)
    assert isinstance(caught.value, RuntimeError)


def test_what_was_pickled_and_printed_inside_init_is_that_of_the_values():
    kept = {}

    def init(m):
        m.table = jnp.arange(3) * 2
        kept.update(pickled=pickle.dumps({"table": m.table}), text=f"{m.table} {m.table!r}")
        m.w = ParamState(R.normal(size=(3,)))

    discover(init)
    assert kept["text"] == f"{jnp.arange(3) * 2} {jnp.arange(3) * 2!r}"
    assert kept["pickled"] == pickle.dumps({"table": jnp.arange(3) * 2})
