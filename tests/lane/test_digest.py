"""The content digest: equal for equal content, in every process, and never equal for what cannot be read."""

import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brainstate import ParamState, nn, random

import shardinit
from shardinit.compiler.executables import _Cache
from shardinit.lane import digest
from shardinit.lane.digest import content_of

TABLE = np.arange(1 << 18, dtype=np.float32)


def traced(function, *arguments):
    return jax.make_jaxpr(function)(*arguments or (1.0,))


def looped(x):
    return jax.lax.fori_loop(0, 3, lambda i, c: jnp.sin(c) * 0.5, x)


def wrapped(number):
    return lambda x: x * number


PAIRS = {
    "numbers": (0.1, 0.2),
    "types": (1, 1.0),
    "bool and int": (True, 1),
    "signs": (0.0, -0.0),
    "dtypes": (np.zeros(2, np.float32), np.zeros(2, np.int32)),
    "shapes": (np.zeros((2, 3)), np.zeros((3, 2))),
    "where arrays are": (np.zeros(2), jnp.zeros(2)),
    "nesting": (((1,), 2), ((1, 2),)),
    "lists": ((1, 2), [1, 2]),
    "long arrays": (TABLE, TABLE[::-1]),
    "literals": (traced(lambda x: x * 2.0), traced(lambda x: x * 3.0)),
    "order": (traced(lambda x, y: x - y, 1.0, 1.0), traced(lambda x, y: y - x, 1.0, 1.0)),
    "constants": (traced(lambda x: x + TABLE[:9]), traced(lambda x: x + TABLE[1:10])),
    "inner constants": (
        traced(lambda x: jax.jit(lambda y: y + TABLE[:9])(x)),
        traced(lambda x: jax.jit(lambda y: y + TABLE[1:10])(x)),
    ),
    "key types": (jax.random.key(0), jax.random.key(0, impl="rbg")),
    "trees": (jax.tree.structure([1, {"a": 2}]), jax.tree.structure([1, {"b": 2}])),
    "functions": (wrapped(1), wrapped(1)),
    "parts of functions": (functools.partial(looped, 1), functools.partial(looped, 2)),
}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_different_things_differ(pair):
    first, second = map(content_of, pair)
    assert first != second
    assert first == content_of(pair[0])


def test_settings_of_inner_equations_are_content():
    def draw(key):
        return jax.random.bits(key, (3,))

    def inside(setting):
        with jax.threefry_partitionable(setting):
            return content_of(traced(jax.jit(lambda key: draw(key)), jax.random.key(0)))

    assert inside(True) == inside(True) != inside(False)


@pytest.mark.parametrize("function", [looped, jax.nn.relu, jnp.sort, lambda x: jax.jit(jnp.tanh)(x) + TABLE[:3]])
def test_two_traces_of_the_same_are_equal(function):
    first = content_of(traced(lambda x: function(x), jnp.ones(3)))
    assert first == content_of(traced(lambda x: function(x), jnp.ones(3)))


def test_functions_differ_in_a_process_and_agree_between_processes():
    one, other, third = content_of(wrapped(1)), content_of(wrapped(1)), content_of(wrapped(2))
    assert one != other
    assert one.digest == other.digest != third.digest


def test_a_function_that_holds_itself():
    def again(x):
        return again(x)

    assert content_of(again) == content_of(again)


CODE = """
import sys
sys.path.insert(0, {folder!r})
import shardinit; shardinit.emulate_cpu(2)
import module_of_the_test as m
print(m.digest())
"""
MODULE = """
import brainstate, jax, jax.numpy as jnp, numpy as np, shardinit
from shardinit.lane.structure import structure_of
R = brainstate.random
class Net(brainstate.nn.Module):
    def init_state(self):
        table = np.arange(100.0, dtype=np.float32)
        self.w = brainstate.ParamState(R.truncated_normal(-2.0, 2.0, size=(4, 4)))
        self.g = brainstate.ParamState(jax.nn.relu(R.gamma(2.0, size=(3,))))
        self.c = brainstate.ParamState(jax.jit(lambda x: x + table)(R.normal(size=(100,))))
        shape = jax.ShapeDtypeStruct((3,), jnp.float32)
        self.h = brainstate.ParamState(jax.pure_callback(lambda x: np.asarray(x), shape, R.normal(size=(3,))))
def digest():
    program = shardinit.discover(Net())
    return [s.content.digest for s, _ in program.program.work(on_mesh=True, whole_lanes=True).pieces]
"""


def test_digests_are_the_same_in_every_process_and_place(tmp_path):
    found = set()
    for seed, place in (("0", "one"), ("1", "two/deeper")):
        folder = tmp_path / place
        folder.mkdir(parents=True)
        (folder / "module_of_the_test.py").write_text("\n" * int(seed) * 7 + MODULE)
        run = subprocess.run(
            [sys.executable, "-c", CODE.format(folder=str(folder))],
            capture_output=True,
            text=True,
            timeout=120,
            env=os.environ | {"PYTHONHASHSEED": seed},
        )
        assert run.returncode == 0, run.stderr
        found.add(run.stdout)
    assert len(found) == 1


def test_nothing_grows_with_the_number_of_programs():
    """Digests are kept as long as the jaxpr lives; executables up to a number."""

    class Scaled(nn.Module):
        def __init__(self, number):
            super().__init__()
            self.number = number

        def init_state(self):
            self.v = ParamState(jax.jit(lambda x: x * self.number)(random.normal(size=(3,))))

    def contents():
        for number in range(60):
            program = shardinit.discover(Scaled(float(number)))
            yield from (s.content for s, _ in program.program.work(on_mesh=True, whole_lanes=True).pieces)

    before = len(digest._jaxprs)
    assert len(set(contents())) == 60
    jax.clear_caches()
    assert len(digest._jaxprs) < before + 45
    cache = _Cache(10, 100)
    for number in range(200):
        assert cache.get(number, digest.NOTHING)[1]
    assert len(cache.futures) == 10
    assert not cache.get(199, digest.NOTHING)[1]
    for number in range(20):
        cache.get(-number, digest.Content("table", array_bytes=30))
    assert sum(cache.sizes.values()) == 90
