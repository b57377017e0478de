"""What init does to generators, buffers, iterators and containers: undone by discover and failures, done by execute."""

import array
import collections
import importlib
import itertools
import os
import pickle
import random
import secrets
import sys
import time
import uuid
import weakref
from dataclasses import dataclass, field

import brainstate
import jax.numpy as jnp
import numpy as np
import pytest
from brainstate import ShortTermState
from numpy.random import default_rng

import shardinit


class Slotted:
    __slots__ = ("n", "rng")

    def __init__(self):
        self.n, self.rng = 0, random.Random(8)


@dataclass
class Table:
    rows: list = field(default_factory=lambda: [1])
    rng: np.random.RandomState = field(default_factory=lambda: np.random.RandomState(9))


class Key:
    pass


def counter(generator):
    def draw():
        return generator.random()

    return draw


def held():
    """Name: object and what init does to it."""
    big = np.zeros(1 << 18)
    key = Key()
    return {
        "Generator": (np.random.default_rng(1), lambda x: x.random(3)),
        "RandomState": (np.random.RandomState(1), lambda x: x.randn(3)),
        "PCG64": (np.random.PCG64(1), lambda x: x.random_raw()),
        "Philox": (np.random.Generator(np.random.Philox(1)), lambda x: x.normal()),
        "SFC64": (np.random.Generator(np.random.SFC64(1)), lambda x: x.normal()),
        "MT19937": (np.random.Generator(np.random.MT19937(1)), lambda x: x.normal()),
        "SeedSequence": (np.random.SeedSequence(1), lambda x: x.spawn(2)),
        "spawning": (np.random.default_rng(1), lambda x: x.spawn(2)),
        "Random": (random.Random(1), lambda x: x.gauss(0, 1)),
        "tuple": ((1, (np.random.default_rng(2),)), lambda x: x[1][0].random()),
        "dict": ({"a": {"b": np.random.RandomState(2)}}, lambda x: x["a"]["b"].rand()),
        "closure": (counter(np.random.default_rng(3)), lambda x: x()),
        "method": (np.random.default_rng(4).random, lambda x: x()),
        "slots": (Slotted(), lambda x: (setattr(x, "n", 3), x.rng.random())),
        "dataclass": (Table(), lambda x: (x.rows.append(2), x.rng.rand())),
        "big array": (big, lambda x: x.__iadd__(1)),
        "array.array": (array.array("d", [1, 2]), lambda x: x.append(3)),
        "bytearray": (bytearray(b"ab"), lambda x: x.extend(b"c")),
        "memoryview": (memoryview(bytearray(b"ab")), lambda x: x.__setitem__(0, 99)),
        "list iterator": (iter([1, 2, 3]), next),
        "array iterator": (iter(array.array("d", [1, 2])), next),
        "ordered": (collections.OrderedDict(a=1, b=2), lambda x: (x.pop("a"), x.update(c=3))),
        "default": (collections.defaultdict(list, a=[1]), lambda x: (x["z"].append(1), x["a"].append(2))),
        "deque": (collections.deque([1, 2], maxlen=2), lambda x: x.append(3)),
        "counts": (collections.Counter("ab"), lambda x: x.update("bc")),
        "user dict": (collections.UserDict(a=1), lambda x: x.update(b=2)),
        "user list": (collections.UserList([1]), lambda x: x.append(2)),
        "set": ({1, 2}, lambda x: x.add(3)),
        "weak values": (weakref.WeakValueDictionary(a=key), lambda x: x.__setitem__("b", key)),
    }  # fmt: skip


class Held(brainstate.nn.Module):
    def __init__(self, name, fail=False):
        super().__init__()
        self.fail = fail
        self.held, self.change = held()[name]

    def init_state(self):
        self.change(self.held)
        random.random()
        np.random.rand()
        self.v = ShortTermState(jnp.zeros(2))
        if self.fail:
            raise RuntimeError("broken init")


def stands(value):
    """Everything that can be seen of an object."""
    if isinstance(value, weakref.WeakValueDictionary):
        return sorted(value)
    if isinstance(value, memoryview):
        return value.tobytes()
    if callable(value):
        owner = getattr(value, "__self__", None)
        return stands(owner if owner is not None else value.__closure__[0].cell_contents)
    if isinstance(value, Slotted):
        return value.n, stands(value.rng)
    seeds = value.bit_generator.seed_seq if isinstance(value, np.random.Generator) else None
    return pickle.dumps((value, seeds))


def whole(module):
    return stands(module.held), random.getstate(), pickle.dumps(np.random.get_state()), hasattr(module, "v")


@pytest.mark.parametrize("name", held())
def test_discover_and_failures_leave_it_and_execute_does_what_one_init_does(name):
    expected = held()[name]
    before = stands(expected[0])
    expected[1](expected[0])
    module = Held(name)
    old = whole(module)
    assert old[0] == before
    program = shardinit.discover(module)
    assert whole(module) == old
    with pytest.raises(shardinit.MemoryBudgetError):
        shardinit.shard_new_states(module, axis_size=8, memory_budget=1)
    assert whole(module) == old
    failing = Held(name, fail=True)
    with pytest.raises(RuntimeError, match="broken init"):
        shardinit.shard_new_states(failing, axis_size=8)
    assert whole(failing) == old
    planned = shardinit.plan(program, shardinit.Topology("cpu", 1, ()), axis_size=2)
    result = shardinit.execute(shardinit.compile(program, planned))
    assert stands(module.held) == stands(expected[0])
    done = whole(module)
    assert done[1:3] != old[1:3]
    result.rerun()
    assert whole(module) == done


@pytest.mark.parametrize(
    "iterator",
    [
        lambda: (i for i in range(3)), lambda: itertools.count(), lambda: zip([1, 2], [3, 4], strict=True),
        lambda: itertools.cycle([1, 2]), lambda: map(str, [1, 2]), lambda: enumerate("ab"),
        lambda: iter({1: 2, 3: 4}), lambda: itertools.chain([1], [2, 3]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("fail", [False, True])
def test_an_iterator_that_cannot_be_put_back_is_named(iterator, fail):
    class Counts(brainstate.nn.Module):
        def __init__(self):
            super().__init__()
            self.numbers = [iterator()]
            self.untouched = [iterator()]

        def init_state(self):
            self.first = next(self.numbers[0])
            self.v = ShortTermState(jnp.zeros(2))
            if fail:
                raise RuntimeError("broken init")

    if fail:
        with pytest.raises(RuntimeError) as caught:
            shardinit.discover(Counts())
        (note,) = caught.value.__notes__
    else:
        (note,) = [n for n in shardinit.discover(Counts()).notes if "iterators" in n]
    assert note.endswith("cannot put back: numbers/0")


def notes_of(init):
    class Host(brainstate.nn.Module):
        def init_state(self):
            self.v = ShortTermState(jnp.asarray(init(self)))

    return [n for n in shardinit.discover(Host()).notes if "on the host" in n]


OWN = np.random.default_rng(5)
OWN_STATE = np.random.RandomState(5)
OWN_PYTHON = random.Random(5)


class HasOne:
    rng = np.random.default_rng(7)


def closed_over():
    rng = np.random.default_rng(8)
    return lambda m: rng.random()


KEPT = {
    "global of a file": lambda m: OWN.normal(),
    "global RandomState": lambda m: OWN_STATE.rand(312)[0],  # a whole block of its numbers, and no seeding
    "global Random": lambda m: OWN_PYTHON.random(),
    "of a class": lambda m: HasOne.rng.random(),
    "closed over": closed_over(),
    "a whole block": lambda m: np.random.rand(312)[0],
    "seeded first": lambda m: (np.random.seed(3), np.random.rand(2))[1],
    "np.random.rand": lambda m: np.random.rand(2),
    "random.random": lambda m: random.random(),
    "random.shuffle": lambda m: (random.shuffle([1, 2, 3]), 1.0)[1],
    "kept": lambda m: setattr(m, "rng", np.random.default_rng(3)) or m.rng.random(),
}
DROPPED = {
    "default_rng(3)": lambda m: np.random.default_rng(3).random(2),
    "default_rng()": lambda m: np.random.default_rng().normal(),
    "RandomState(3)": lambda m: np.random.RandomState(3).rand(2),
    "bound": lambda m: (lambda draw: draw())(np.random.default_rng(3).normal),
    "raw": lambda m: np.random.PCG64(3).random_raw() % 7,
    "Random(3)": lambda m: random.Random(3).random(),
    "gauss": lambda m: random.Random().gauss(0, 1),
    "SystemRandom": lambda m: random.SystemRandom().random(),
    "os.urandom": lambda m: float(os.urandom(1)[0]),
    "secrets": lambda m: float(secrets.randbelow(9)),
    "seeded by the time": lambda m: np.random.default_rng(time.time_ns()).random(),
    "imported": lambda m: default_rng(3).random(),
    "legacy": lambda m: np.random.RandomState(np.random.MT19937(3)).rand(),
    "spawned": lambda m: np.random.default_rng(3).spawn(1)[0].random(),
    "Philox": lambda m: np.random.Generator(np.random.Philox(3)).random(),
    "token": lambda m: float(secrets.token_bytes(1)[0]),
    "choice of secrets": lambda m: float(secrets.choice([1, 2])),
    "uuid": lambda m: float(uuid.uuid4().int % 7),
}
SEEN = KEPT | DROPPED


@pytest.mark.parametrize("name", SEEN)
def test_draws_on_the_host_are_named(name):
    (note,) = notes_of(SEEN[name])
    assert "the same on every lane" in note
    if name in DROPPED or name == "kept":  # what was there before is named
        assert "test_host_objects.py" in note


@pytest.mark.parametrize(
    "init",
    [
        lambda m: (brainstate.random.seed(3), 1.0)[1],
        lambda m: (brainstate.random.seed(), 1.0)[1],
        lambda m: (np.random.seed(3), random.seed(3), 1.0)[2],
        lambda m: brainstate.random.normal(),
    ],
)
def test_seeding_is_no_draw(init):
    assert not notes_of(init)


def test_watching_leaves_generators_of_python_and_numpy_as_they_are():
    before = (np.random.bit_generator.ISeedSequence, random.Random.__init__, random._urandom, os.urandom)
    assert notes_of(lambda m: random.Random(3).random())
    with pytest.raises(ZeroDivisionError):
        notes_of(lambda m: 1 / 0)
    assert (np.random.bit_generator.ISeedSequence, random.Random.__init__, random._urandom, os.urandom) == before


def test_a_module_that_was_discovered_draws_what_it_would_have_drawn():
    conn = pytest.importorskip("braintools.conn") if sys.version_info >= (3, 12) else None

    class Connected(brainstate.nn.Module):
        def __init__(self):
            super().__init__()
            self.conn = conn.FixedProb(0.3, seed=1) if conn else np.random.RandomState(1).rand

        def init_state(self):
            drawn = self.conn(pre_size=8, post_size=8).post_indices if conn else self.conn(5)
            self.v = shardinit.NonBatchState(np.asarray(drawn))

    expected, module = Connected(), Connected()
    expected.init_state()
    shardinit.discover(module)
    with pytest.raises(shardinit.ArgumentError):
        shardinit.shard_new_states(module, axis_size=8, strategy="none such")
    shardinit.shard_new_states(module, axis_size=8)
    np.testing.assert_array_equal(module.v.value, expected.v.value)


PACKAGE = """
from numpy.random import default_rng
late = None

def draws_from(rng):
    def draw():
        return rng.random()
    return draw

def wrapped(function):
    def call():
        return function()
    return call

class Model:
    rng = default_rng(4)

draw = wrapped(draws_from(default_rng(3)))
"""


def test_generators_of_installed_packages_are_put_back_and_named(tmp_path, monkeypatch):
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "of_a_lab.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(str(folder))
    package = importlib.import_module("of_a_lab")

    class Module(brainstate.nn.Module):
        def init_state(self):
            drawn = package.draw() + package.Model.rng.random() + (0 if package.late is None else package.late.random())
            self.v = ShortTermState(jnp.zeros(3) + drawn)

    try:
        first, again = shardinit.discover(Module()), shardinit.discover(Module())
        package.late = default_rng(5)  # of what the package holds, this alone is new
        late = shardinit.discover(Module())
    finally:
        del sys.modules["of_a_lab"]
    assert package.Model.rng.random() == default_rng(4).random()
    assert package.draw() == default_rng(3).random()
    assert package.late.random() == default_rng(5).random()
    assert first.notes == again.notes
    (note,) = [n for n in late.notes if "on the host" in n]
    assert all(name in note for name in ("of_a_lab/draw", "of_a_lab/Model/rng", "of_a_lab/late"))
