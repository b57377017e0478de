"""Callbacks, checks and prints in init: what all lanes share is asked for once, on one device; what fails raises."""

import subprocess
import sys
from collections import Counter

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brainstate import ParamState, ShortTermState
from jax.experimental import io_callback

import shardinit
from shardinit import NonBatchState
from tests.conftest import mesh_of
from tests.reference import assert_like_brainstate

R = brainstate.random
LANES = 8


def of(init):
    class Module(brainstate.nn.Module):
        def init_state(self):
            init(self)

    return Module


def on(*shape, **options):
    return lambda m: shardinit.shard_new_states(m, axis_size=LANES, mesh=mesh_of(*shape), **options)


WAYS = {
    "1 device": on(1),
    "8 devices": on(8),
    "4x2": on(4, 2),
    "2x4 split": on(2, 4, rules=[("w", ("lanes", "model", None))]),
    "replicated": on(8, strategy="vmap"),
    "vmap2": lambda m: shardinit.vmap2_new_states(m, {}, axis_size=LANES),
    "pmap2": lambda m: shardinit.pmap2_new_states(m, {}, axis_size=LANES),
}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


class Asked:
    """Callbacks that count how often they are called."""

    def __init__(self):
        self.calls = Counter()

    def number(self):
        """Ask the host for a number, the same whenever it is asked."""
        return io_callback(self._count("number", lambda: np.int32(5)), jax.ShapeDtypeStruct((), jnp.int32))

    def doubled(self, x, ask=jax.pure_callback, **options):
        twice = self._count("doubled", lambda v: np.asarray(v) * np.float32(2))
        return ask(twice, jax.ShapeDtypeStruct(x.shape, x.dtype), x, **options)

    def _count(self, name, function):
        def called(*arguments):
            self.calls[name] += 1
            return function(*arguments)

        return called


@ways
def test_what_all_lanes_share_is_asked_for_once(way):
    asked = Asked()

    def init(m):
        number = asked.number()
        m.a = ShortTermState(number)
        m.n = NonBatchState(asked.doubled(number * 1.0))
        m.w = ParamState(R.randint(0, 9, size=(8, 4)) * number)
        m.inside = ShortTermState(jax.jit(lambda: asked.number() + 1)())
        if asked.number() > 4:  # during the trace
            m.branch = NonBatchState(number)

    def counted(module):
        asked.calls.clear()
        result = way(module)
        assert asked.calls == {"number": 3, "doubled": 1}
        return result

    assert_like_brainstate(of(init), counted, axis_size=LANES)


@ways
def test_a_count_is_one_for_all_lanes(way):
    count = iter(range(1, 100))

    def init(m):
        number = io_callback(lambda: np.int32(next(count)), jax.ShapeDtypeStruct((), jnp.int32))
        jax.debug.callback(lambda n: printed.append(int(n)), number)
        m.a = ShortTermState(number)
        m.w = ParamState(jnp.zeros((8, 4)) + number)
        m.n = NonBatchState(number)

    for expected in (1, 2):
        printed = []
        module = of(init)()
        way(module)
        assert printed == [expected]
        for state in (module.a, module.w, module.n):
            assert set(np.ravel(state.value)) == {expected}


@ways
@pytest.mark.parametrize("ask", [jax.pure_callback, io_callback])
def test_what_differs_by_lane_is_asked_for_each_lane(way, ask):
    asked = Asked()
    options = {"vmap_method": "sequential"} if ask is jax.pure_callback else {}

    def init(m):
        x = R.randint(0, 99, size=(8, 4)) * 1.0
        m.w = ParamState(asked.doubled(x, ask, **options) + 1.0)
        jax.debug.callback(lambda n: printed.append(n.shape), m.w.value)  # reads it, does not ask again

    def counted(module):
        asked.calls.clear()
        printed.clear()
        result = way(module)
        assert printed == [(8, 4)] * LANES
        assert asked.calls["doubled"] in ([LANES] if ask is io_callback else [LANES, 2 * LANES, 4 * LANES])
        return result

    printed = []
    assert_like_brainstate(of(init), counted, axis_size=LANES)


@pytest.mark.parametrize("remainder", ["factor", "replicate", "pad"])
def test_lanes_that_do_not_divide_are_asked_for_once(remainder):
    asked = Asked()

    def init(m):
        m.w = ParamState(asked.doubled(R.randint(0, 99, size=(8, 4)) * 1.0, io_callback))

    def counted(module):
        asked.calls.clear()
        result = shardinit.shard_new_states(module, axis_size=6, remainder=remainder)
        assert asked.calls == {"doubled": 6}
        return result

    assert_like_brainstate(of(init), counted, axis_size=6)


def test_rerun_asks_again():
    asked = Asked()
    module = of(lambda m: setattr(m, "a", ShortTermState(asked.number())))()
    result = shardinit.shard_new_states(module, axis_size=LANES)
    result.rerun(key=1)
    assert asked.calls == {"number": 2}


def test_a_budget_counts_what_is_asked_for_and_what_is_printed():
    size = 1 << 18

    def init(m):
        x = R.normal(size=(size,))
        jax.jit(lambda v: jax.debug.callback(lambda n: None, v * 2.0))(x)
        m.n = NonBatchState(jax.pure_callback(np.asarray, jax.ShapeDtypeStruct((size,), jnp.float32), jnp.ones(size)))
        m.x = ParamState(x)

    plan = shardinit.plan(shardinit.discover(of(init)()), "cpu:8", axis_size=LANES, memory_budget="unlimited")
    steps = {step.state: step for step in plan.steps}
    assert steps["(asked once)"].made == 4 * size
    assert steps["(asked once)"] is plan.steps[1]  # after the keys, before all others
    assert plan.steps[-1].held + plan.steps[-1].made >= 3 * 4 * size  # the state, what is printed, the shared one


TOO_LARGE = "too large: "


@pytest.mark.parametrize("way", ["1 device", "8 devices", "vmap2", "pmap2"])
@pytest.mark.parametrize("inside", ["shared", "by lane", "jit", "nested jit"])
def test_the_sentence_of_a_check_is_the_error(way, inside):
    R.seed(7)
    drawn = of(lambda m: setattr(m, "x", ShortTermState(R.randint(0, 10**6, size=()))))()
    values = np.sort(np.asarray(shardinit.vmap2_new_states(drawn, {}, axis_size=LANES)[0][0].value))
    most = int(values[-2])

    def check(x):
        brainstate.transform.jit_error_if(x > most, TOO_LARGE + "{}", x)
        return x * 2

    def init(m):
        x = R.randint(0, 10**6, size=())
        y = jnp.asarray(most) + 1 if inside == "shared" else x
        one = jax.jit(check)
        m.y = ShortTermState({"jit": one, "nested jit": jax.jit(lambda v: one(v) + 1)}.get(inside, check)(y))

    R.seed(7)
    module = of(init)()
    failing = most + 1 if inside == "shared" else int(values[-1])
    with pytest.raises(jax.errors.JaxRuntimeError, match=f"{TOO_LARGE}{failing}"):
        WAYS[way](module)
    assert not module.states()


@ways
def test_a_check_that_holds_changes_nothing(way):
    def fail(_):
        raise ValueError("it holds")

    def init(m):
        x = R.randint(0, 99, size=(8, 4))
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        ask = lambda v: jax.pure_callback(fail, shape, v, vmap_method="broadcast_all")  # noqa: E731
        bad = brainstate.transform.unvmap(x > 99)  # as equinox's error_if has it
        m.w = ParamState(jax.lax.cond(bad, ask, lambda v: v, x) * 2)
        jax.debug.callback(lambda b: seen.append(bool(b)), bad)
        m.any = ShortTermState(bad)

    seen = []

    def once(module):
        seen.clear()
        result = way(module)
        assert seen == [False]
        return result

    assert_like_brainstate(of(init), once, axis_size=LANES)


FAILING = """
import shardinit; shardinit.emulate_cpu(8)
import brainstate, jax, jax.numpy as jnp, numpy as np
from tests.executor.test_callbacks import WAYS, R, of, NonBatchState, ParamState

shape = jax.ShapeDtypeStruct((8, 4), jnp.float32)

def fail(*_):
    raise ValueError("the user's sentence")

def error_if(x, bad):  # as equinox has it
    ask = lambda v: jax.pure_callback(fail, shape, v, vmap_method="broadcast_all")
    return jax.lax.cond(brainstate.transform.unvmap(bad), ask, lambda v: v, x)

def shared(m):
    m.n = NonBatchState(jax.pure_callback(fail, shape, jnp.ones(3)))

def by_lane(m):
    m.w = ParamState(jax.pure_callback(fail, shape, R.normal(size=(8, 4)), vmap_method="sequential"))

def check_of_shared(m):
    m.n = NonBatchState(error_if(jnp.ones((8, 4)), jnp.ones(()) > 0))

def check_by_lane(m):
    x = R.normal(size=(8, 4))
    m.w = ParamState(error_if(x, x[0, 0] > 1.4))

for name in WAYS:
    for init in (shared, by_lane, check_of_shared, check_by_lane):
        if "split" in name and init in (shared, check_of_shared):  # no state that the rule is for
            continue
        R.seed(7)
        key = R.DEFAULT.value
        module = of(init)()
        try:
            WAYS[name](module)
        except jax.errors.JaxRuntimeError as error:
            assert "the user's sentence" in str(error)
            assert not module.states() and R.DEFAULT.value is key
            print("raised")
"""


def test_what_fails_raises_and_changes_nothing():
    done = subprocess.run([sys.executable, "-c", FAILING], capture_output=True, text=True, timeout=280)
    assert done.stdout.count("raised") == 4 * len(WAYS) - 2, done.stderr[-3000:]
