"""Whatever fails, everything is as it was, no tracer is left, and the next call works."""

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brainstate import HiddenState, ParamState, ShortTermState

import shardinit
from shardinit.compiler import executables
from shardinit.executor import produce
from shardinit.frontends.brainstate import sink
from tests.reference import raw

FUNCTIONS = [
    lambda m: shardinit.vmap2_new_states(m, {}, axis_size=8),
    lambda m: shardinit.pmap2_new_states(m, {}),
    lambda m: shardinit.shard_new_states(m, axis_size=8, state_tag="t"),
]


class Busy(brainstate.nn.Module):
    """Init that changes everything that it can."""

    def __init__(self):
        super().__init__()
        self.old = ParamState(jnp.ones(3), tag="kept")
        self.log = ["made"]
        self.table = {"a": 1}
        self.child = brainstate.nn.Linear(2, 2)
        self.fail = True
        self.rng = brainstate.random.RandomState(5)

    def init_state(self):
        self.old.value = jnp.full(3, 2.0)
        self.old.add_tag("new")
        self.log.append(jnp.zeros(2))
        self.table["b"] = brainstate.random.uniform(size=(2,))
        self.child.extra = jnp.ones(1)
        del self.table["a"]
        self.v = HiddenState(self.rng.normal(size=(4,)) + np.random.rand())
        self.finish()

    def finish(self):
        if self.fail:
            raise RuntimeError("broken init")


def picture(module):
    """Everything that a failed call must leave alone."""
    states = {
        name: (id(s), raw(s.value), set(s.tag or ()), s.stack_level, s._been_writen)
        for name, s in {"old": module.old, "child": module.child.weight, "rng": module.rng}.items()
    }
    return (
        {k: id(v) for k, v in vars(module).items()},
        list(module.log),
        dict(module.table),
        set(vars(module.child)),
        repr(states),
        np.asarray(jax.random.key_data(brainstate.random.DEFAULT.value)).tolist(),
        np.random.get_state()[1].tolist(),
        np.random.get_state()[2],
    )


def assert_untouched(function, error, **options):
    module = Busy()
    vars(module).update(options)
    before = picture(module)
    with pytest.raises(error):
        function(module)
    assert picture(module) == before
    return module


def assert_works(function, module):
    module.fail = False
    function(module)
    assert module.v.value.shape == (8, 4)
    assert module.old.value.shape == ((8, 3) if function is FUNCTIONS[2] else (3,))
    assert module.log[0] == "made"
    assert module.table["b"].shape == (8, 2)
    assert list(module.table) == ["b"]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_init_raises(function):
    assert_works(function, assert_untouched(function, RuntimeError))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_init_is_interrupted(function):
    def interrupt():
        raise KeyboardInterrupt

    module = assert_untouched(function, KeyboardInterrupt, finish=interrupt)
    del module.finish
    assert_works(function, module)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_shape_error(function):
    module = assert_untouched(function, TypeError, finish=lambda: jnp.zeros(3) + jnp.zeros(4))
    del module.finish
    assert_works(function, module)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_check_that_does_not_hold(function):
    def draw():
        brainstate.random.truncated_normal(3.0, 1.0, size=(3,))

    with pytest.raises(Exception, match="mean is more than 2 std") as caught:
        brainstate.transform.vmap2_new_states(_with_finish(draw), {}, axis_size=8)
    module = assert_untouched(function, type(caught.value), finish=draw)
    del module.finish
    assert_works(function, module)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_check_that_does_not_hold_on_some_lanes(function):
    def draw():
        p = brainstate.random.normal(size=(3,))
        brainstate.random.bernoulli(p, size=(3,))

    module = assert_untouched(function, Exception, finish=draw)
    del module.finish
    assert_works(function, module)


def _with_finish(finish):
    module = Busy()
    module.finish = finish
    return module


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (executables, "piece_program"),
        (executables, "key_program"),
        (produce._Launcher, "launch"),
        (produce, "run_check"),
        (sink.ModuleSink, "commit"),
        (sink, "_write_state"),
        (sink, "_apply"),
    ],
)
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("function", FUNCTIONS[::2])
def test_each_stage_fails(monkeypatch, place, name, error, function):
    def fail(*args, **kwargs):
        raise error("RESOURCE_EXHAUSTED: out of memory")

    def draw():
        brainstate.random.truncated_normal(-1.0, 1.0, size=(3,))

    executables._executables.futures.clear()
    module = _with_finish(draw)
    before = picture(module)
    with monkeypatch.context() as patch:
        patch.setattr(place, name, fail)
        with pytest.raises(error):
            function(module)
    assert picture(module) == before
    del module.finish
    assert_works(function, module)


def test_a_compilation_that_fails_is_tried_again(monkeypatch):
    calls = []

    def fail_once(*args):
        calls.append(1)
        raise RuntimeError("the compiler broke")

    executables._executables.futures.clear()
    module = Busy()
    module.fail = False
    with monkeypatch.context() as patch:
        patch.setattr(executables._threads, "submit", lambda f, future, *a: _fail(future, fail_once))
        with pytest.raises(RuntimeError, match="the compiler broke"):
            FUNCTIONS[2](module)
    assert_works(FUNCTIONS[2], module)


def _fail(future, function):
    try:
        function()
    except RuntimeError as error:
        future.set_exception(error)


def test_bad_axis_touches_nothing():
    def function(module):
        module.fail = False
        try:
            shardinit.shard_new_states(module, axis_size=8, state_out_axes={3: HiddenState})
        finally:
            module.fail = True

    assert_untouched(function, shardinit.AxisAssignmentError)


def test_axis_size_of_a_wrong_type_poisons_nothing():
    class Plain(brainstate.nn.Module):
        def init_state(self):
            self.v = ShortTermState(brainstate.random.normal(size=(2,)))

    module = Plain()
    with pytest.raises(TypeError):
        shardinit.vmap2_new_states(module, {}, axis_size=2.0)
    shardinit.vmap2_new_states(module, {}, axis_size=2)
    assert module.v.value.shape == (2, 2)


def test_no_trace_is_kept_alive():
    module = Busy()
    module.fail = False
    result = shardinit.shard_new_states(module, axis_size=8)
    for state in (module.v, module.old):
        assert state._trace_state.is_valid()
    del result
    assert not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves([module.log, module.table]))
