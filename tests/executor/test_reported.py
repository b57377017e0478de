"""Cases that were wrong once: each was found by reading or trying, and reproduced."""

import functools
from collections import deque

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brainstate import HiddenState, ParamState, ShortTermState
from jax import lax

import shardinit
from tests.conftest import mesh_of
from tests.reference import assert_like_brainstate

R = brainstate.random


class Init(brainstate.nn.Module):
    """A module whose init is a function."""

    def __init__(self, init):
        super().__init__()
        self._init = init

    def init_state(self, **kwargs):
        self._init(self, **kwargs)


def check(init, axis_size=8, **options):
    return assert_like_brainstate(
        lambda: Init(init), lambda m: shardinit.shard_new_states(m, axis_size=axis_size), axis_size=axis_size, **options
    )


def test_programs_that_differ_in_the_sign_of_zero():
    def init(m):
        x = R.normal(size=(4,))
        m.a = ShortTermState(jax.jit(lambda v: jnp.copysign(v, 0.0))(x))
        m.b = ShortTermState(jax.jit(lambda v: jnp.copysign(v, -0.0))(x))

    check(init)


def test_numpy_buffer_that_is_filled_again():
    def init(m):
        buffer = np.zeros(3)
        m.a, m.b = ShortTermState(jnp.asarray(buffer)), ShortTermState(jnp.zeros(3) + buffer)
        buffer[:] = 5

    check(init)


def test_key_tables_of_equal_size_with_other_steps():
    def draws(ones, twos):
        def init(m):
            keys = [R.split_key() for _ in range(ones)] + [R.split_key(2)[1] for _ in range(twos)]
            m.v = ShortTermState(sum(jax.random.normal(k, (2,)) for k in keys))

        return init

    check(draws(1, 4))
    check(draws(4, 2))


@pytest.mark.parametrize("spmd", [None, "lanes"])
def test_mesh_with_explicit_axes(spmd):
    def init(m):
        m.w = ParamState(R.normal(size=(4, 4)) * 0.02)
        m.t = ParamState(R.truncated_normal(-2.0, 2.0, size=(4,)))

    def initialize(module):
        with jax.set_mesh(jax.make_mesh((8,), ("lanes",))):
            return shardinit.vmap2_new_states(module, {}, axis_size=8, spmd_axis_name=spmd)

    assert_like_brainstate(lambda: Init(init), initialize, axis_size=8)
    assert len(R.DEFAULT.value.devices()) == 1


def test_arrays_that_live_elsewhere():
    far = jax.device_put(jnp.arange(3.0), jax.devices()[3])
    module = Init(lambda m: setattr(m, "v", ShortTermState(far * 2.0)))
    shardinit.vmap2_new_states(module, {}, axis_size=2)
    np.testing.assert_array_equal(module.v.value, [[0.0, 2.0, 4.0]] * 2)
    ensemble = Init(lambda m: setattr(m, "v", ShortTermState(R.normal(size=(8,)))))
    shardinit.shard_new_states(ensemble, axis_size=8)
    reader = Init(lambda m: setattr(m, "v", ShortTermState(ensemble.v.value.sum(axis=0))))
    shardinit.vmap2_new_states(reader, {}, axis_size=2)
    assert reader.v.value.shape == (2, 8)


def test_masks_and_formats_of_what_all_lanes_share():
    def init(m):
        x = R.normal(size=(5,))
        mask = jnp.arange(5) > 1
        m.a = ShortTermState(x[mask])
        m.b = ShortTermState(x.at[mask].set(0.0))
        m.text = f"{jnp.asarray(1.5) * 2:.1f}"

    module, _ = check(init)
    assert module.text == "3.0"


class Slotted:
    __slots__ = ("array", "n")


def test_no_tracer_is_left_wherever_init_puts_it():
    def init(m):
        x = jnp.ones(2) * 3.0
        m.partial = functools.partial(jnp.add, x, y=None)
        m.default = lambda s=x, *, k=x: s + k
        m.queue = deque([x])
        m.slotted = Slotted()
        m.slotted.array = x

        def function():
            return function.cache

        function.cache = x
        m.function = function
        m.v = ShortTermState(R.normal(size=(2,)))

    module, _ = check(init)
    held = [module.partial.args[0], module.default(), module.queue[0], module.slotted.array, module.function()]
    assert all(isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer) for x in held)


def test_caches_outside_the_module():
    @functools.lru_cache
    def table(n):
        return jnp.arange(n) * 2

    def init(m):
        m.v = ShortTermState(table(3) + R.normal(size=(3,)))

    for _ in range(2):
        shardinit.shard_new_states(Init(init), axis_size=8)
    brainstate.transform.vmap2_new_states(Init(init), {}, axis_size=8)
    np.testing.assert_array_equal(jnp.add(table(3), 1), [1, 3, 5])


def test_lists_in_init_kwargs():
    def init(m, log):
        log.append(jnp.zeros(2))
        m.v = ShortTermState(R.normal(size=(2,)))
        if len(log) > 2:
            raise RuntimeError("full")

    log = []
    for _ in range(2):
        shardinit.shard_new_states(Init(init), {"log": log}, axis_size=8)
    assert not any(isinstance(x, jax.core.Tracer) for x in log)
    with pytest.raises(RuntimeError, match="full"):
        shardinit.shard_new_states(Init(init), {"log": log}, axis_size=8)
    assert len(log) == 2


def test_value_of_a_state_changed_in_place():
    module = Init(lambda m: m.linear.weight.value.update(bias=jnp.zeros(3) + 1.0))
    module.linear = brainstate.nn.Linear(2, 3)
    before = dict(module.linear.weight.value)
    program = shardinit.discover(module)
    assert module.linear.weight.value["bias"] is before["bias"]
    shardinit.execute(shardinit.compile(program, shardinit.plan(program, shardinit.Topology("cpu", 8), axis_size=8)))
    np.testing.assert_array_equal(module.linear.weight.value["bias"], np.ones(3))


def test_default_initializers_inside_jit_and_loops():
    def init(m):
        m.a = ParamState(brainstate.transform.jit(lambda: R.truncated_normal(-2.0, 2.0, size=(3,)))())
        m.b = ParamState(
            brainstate.transform.for_loop(lambda i: R.truncated_normal(-1.0, 1.0, size=(3,)), jnp.arange(4))
        )

    check(init)


def test_checks_inside_jit_still_fire():
    def init(m):
        m.a = ParamState(brainstate.transform.jit(lambda: R.truncated_normal(3.0, 1.0, size=(3,)))())

    with pytest.raises(Exception, match="mean is more than 2 std"):
        shardinit.shard_new_states(Init(init), axis_size=8)


def test_collectives_inside_jit_and_in_attributes():
    def init(m):
        x = R.normal(size=(3,))
        m.rank = ShortTermState(jax.jit(lambda: lax.axis_index("i") * 1.5)())
        m.total = lax.psum(x, "i")
        m.x = HiddenState(x)

    module = Init(init)
    shardinit.pmap2_new_states(module, {}, axis_name="i")
    np.testing.assert_array_equal(module.rank.value, np.arange(8) * 1.5)
    np.testing.assert_allclose(module.total, np.asarray(module.x.value).sum(axis=0), rtol=1e-5)

    @brainstate.transform.jit
    def inside():
        inner = Init(init)
        shardinit.pmap2_new_states(inner, {}, axis_size=8, axis_name="i")
        return inner.rank.value

    np.testing.assert_array_equal(inside(), np.arange(8) * 1.5)


def test_axis_name_that_is_no_string():
    with pytest.raises(TypeError, match="axis_name=0 is an int"):
        shardinit.pmap2_new_states(Init(lambda m: None), {}, axis_name=0)


def test_sums_of_lanes_that_are_split_hold_no_more_than_their_share():
    def init(m):
        w = R.normal(size=(1024, 1024))
        m.w = ParamState(w / jnp.sqrt(jnp.sum(w**2)))

    module = Init(init)
    result = shardinit.shard_new_states(module, axis_size=1)
    assert module.w.value.addressable_shards[0].data.size == 1024 * 1024 // 8
    assert all(
        index is not None for p in result.compiled.programs for i in p.program.instances for index, _ in i.outputs
    )


def test_numpy_objects_are_put_back():
    class Counts(brainstate.nn.Module):
        def __init__(self):
            super().__init__()
            self.count, self.rng, self.fail = np.zeros(2), np.random.default_rng(0), True

        def init_state(self):
            self.count += 1
            self.v = ShortTermState(self.rng.random(2))
            if self.fail:
                raise RuntimeError

    module = Counts()
    with pytest.raises(RuntimeError):
        shardinit.shard_new_states(module, axis_size=8)
    assert module.count.sum() == 0
    module.fail = False
    result = shardinit.shard_new_states(module, axis_size=8)
    np.testing.assert_array_equal(module.v.value[0], np.random.default_rng(0).random(2).astype(np.float32))
    assert module.count.tolist() == [1.0, 1.0]
    assert any("NumPy generator" in note for note in result.receipt.notes)


def test_changes_between_discover_and_execute_stay():
    module = Init(lambda m: setattr(m, "v", ShortTermState(R.normal(size=(2,)))))
    program = shardinit.discover(module)
    module.extra, module.in_between = 5, "kept"
    shardinit.execute(shardinit.compile(program, shardinit.plan(program, shardinit.Topology("cpu", 8), axis_size=8)))
    assert (module.extra, module.in_between) == (5, "kept")
    assert module.v.value.shape == (8, 2)


def test_spmd_axis_that_the_mesh_does_not_have():
    with jax.set_mesh(mesh_of(8)), pytest.raises(shardinit.ArgumentError, match="'lane' is not an axis"):
        shardinit.vmap2_new_states(Init(lambda m: None), {}, axis_size=8, spmd_axis_name="lane")


def test_without_jit():
    with jax.disable_jit():
        module = Init(lambda m: setattr(m, "v", ShortTermState(R.normal(size=(2,)))))
        shardinit.shard_new_states(module, axis_size=8)
    assert module.v.value.shape == (8, 2)


def test_shard_map_inside_init_is_refused_clearly():
    def init(m):
        f = jax.shard_map(lambda x: x, mesh=mesh_of(8), in_specs=jax.P("lanes"), out_specs=jax.P("lanes"))
        m.v = ShortTermState(f(R.normal(size=(8,))))

    with pytest.raises(shardinit.ShardInitError, match=r"jax.shard_map at .*test_reported\.py"):
        shardinit.shard_new_states(Init(init), axis_size=8)


@pytest.mark.parametrize("size", [3, 5, 7])
def test_logarithms_of_few_numbers(size):
    """Which elements go through a vectorized logarithm depends on the compiler's effort."""

    def init(m):
        m.log = HiddenState(jnp.log(R.uniform(0.1, 1.0, size=(size,))))
        m.exp = HiddenState(jnp.exp(R.uniform(0.1, 1.0, size=(size,))))
        m.gumbel = HiddenState(R.gumbel(size=(size,)))
        m.tanh = HiddenState(jnp.tanh(R.normal(size=(size,))))

    check(init, axis_size=16)


def test_plan_of_another_program():
    def program(size):
        return shardinit.discover(Init(lambda m: setattr(m, "v", ShortTermState(jnp.zeros(size)))))

    planned = shardinit.plan(program(6), shardinit.Topology("cpu", 8), axis_size=8)
    with pytest.raises(shardinit.PlanError, match=r"float32\[6\].*float32\[9\]"):
        shardinit.compile(program(9), planned)
    with pytest.raises(TypeError, match="Pass what discover and plan return"):
        shardinit.compile(planned, program(6))


def test_strategy_vmap_says_that_every_device_has_every_lane():
    module = Init(lambda m: setattr(m, "v", ShortTermState(jnp.zeros(2))))
    result = shardinit.shard_new_states(module, axis_size=8, strategy="vmap")
    assert result.plan.lanes_per_device == 8
    assert module.v.value.is_fully_replicated


def test_keys_that_are_turned_are_refused_as_by_eager_jax():
    """They were other keys, without a word: the numbers of keys were moved as if nothing were turned."""

    def init(m):
        keys = lax.reshape(jax.random.split(R.split_key(), (2, 3)), (6,), (1, 0))
        m.v = ShortTermState(jax.random.normal(keys[1], (4,)))

    for initialize in (brainstate.transform.vmap2_new_states, shardinit.vmap2_new_states):
        with pytest.raises(Exception, match="reshape"):
            initialize(Init(init), {}, axis_size=8)


def test_no_keys_at_all():
    def init(m):
        m.none = ShortTermState(jax.random.key_data(jax.random.split(R.split_key(), 0)))
        m.v = ShortTermState(R.normal(size=(4,)))

    check(init)


def test_host_memory_that_init_asks_for_is_named():
    def init(m):
        m.v = ShortTermState(jax.device_put(R.normal(size=(8,)), jax.memory.Space.Host))

    module = Init(init)
    (note,) = shardinit.shard_new_states(module, axis_size=8).receipt.notes
    assert "placement asked for inside init was not followed" in note
    assert "test_reported.py" in note


def test_sums_of_single_lanes_in_parts_are_named():
    def init(m):
        w = R.normal(size=(1000, 1024))
        m.w = ParamState(w / w.sum())

    result = shardinit.shard_new_states(Init(init), axis_size=1, mesh=mesh_of(1, 8, names=("lanes", "model")))
    assert any("sums whose last bit" in note and note.endswith(": w") for note in result.receipt.notes)
