"""``vmap2_new_states.txt``, sentence by sentence. The quoted lines are the documentation's."""

import inspect

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brainstate.util.filter import OfType, PathContains

import shardinit
from shardinit import NonBatchState, pmap2_new_states, vmap2_new_states
from tests.conftest import mesh_of

FUNCTIONS = [vmap2_new_states, pmap2_new_states]
# brainstate 0.5.0 does not have it yet.
in_new_state_probe = getattr(brainstate.transform, "in_new_state_probe", lambda: False)


class Pair(brainstate.nn.Module):
    def init_state(self, size=4):
        self.weight = brainstate.ParamState(jnp.zeros((size, 3)))
        self.spike = brainstate.ShortTermState(brainstate.random.uniform(size=(size,)))


class Mixed(brainstate.nn.Module):
    def init_state(self):
        self.batched = brainstate.ShortTermState(0)
        self.shared = NonBatchState(jnp.array([1, 2, 3]))


# "vmap2_new_states(module, init_kwargs, state_tag=None, axis_size=None, state_out_axes=None)"


@pytest.mark.parametrize(
    ("ours", "name"), [(vmap2_new_states, "vmap2_new_states"), (pmap2_new_states, "pmap2_new_states")]
)
def test_same_parameters_in_the_same_order(ours, name):
    theirs = inspect.signature(getattr(brainstate.transform, name)).parameters
    mine = inspect.signature(ours).parameters
    assert list(mine)[: len(theirs)] == list(theirs)
    assert [p.default for p in mine.values()][: len(theirs)] == [p.default for p in theirs.values()]
    assert all(p.kind is p.KEYWORD_ONLY for p in list(mine.values())[len(theirs) :])


# "Initialize and vectorize newly created states within a module."
# "vectorized versions of all states that are initialized when calling module.init_all_states(**init_kwargs)"


@pytest.mark.parametrize("function", FUNCTIONS)
def test_all_states_are_vectorized(function):
    module = Pair()
    function(module, {}, axis_size=8)
    assert module.weight.value.shape == (8, 4, 3)
    assert module.spike.value.shape == (8, 4)


# "restores the vectorized state values back to the original state objects. This allows subsequent
# operations on the module to work with batched states transparently."


def test_states_work_at_once_in_every_transform():
    module = Pair()
    states = vmap2_new_states(module, {}, axis_size=8)

    def step(x):
        module.spike.value = module.spike.value * 0.5 + x
        return module.spike.value

    mapped = brainstate.transform.vmap2(
        lambda x: step(x),
        state_in_axes={0: OfType(brainstate.ShortTermState)},
        state_out_axes={0: OfType(brainstate.ShortTermState)},
    )
    assert mapped(jnp.arange(8.0)).shape == (8, 4)
    assert brainstate.transform.jit(step)(1.0).shape == (8, 4)
    assert brainstate.transform.for_loop(step, jnp.arange(3.0)).shape == (3, 8, 4)
    gradient = brainstate.transform.grad(lambda: (module.weight.value**2).sum(), grad_states={"w": module.weight})()
    assert gradient["w"].shape == (8, 4, 3)
    assert all(s.stack_level == 0 for group in states.values() for s in group)


# "module (Module) - Must have an init_all_states method that creates the states to be vectorized."


@pytest.mark.parametrize("function", FUNCTIONS)
def test_module_without_init_all_states(function):
    with pytest.raises(TypeError, match="without an init_all_states method"):
        function(object(), {}, axis_size=8)


# "init_kwargs (Dict) - Keyword arguments forwarded to module.init_all_states(**init_kwargs)"


@pytest.mark.parametrize("function", FUNCTIONS)
def test_init_kwargs_are_forwarded(function):
    module = Pair()
    function(module, {"size": 6}, axis_size=8)
    assert module.spike.value.shape == (8, 6)
    with pytest.raises(TypeError, match="init_kwargs"):
        function(module, [6], axis_size=8)


# "state_tag (str) - Tag for identifying and grouping the newly created states."


def test_tag_is_on_the_states_before_the_filters_look():
    module = Pair()
    states = vmap2_new_states(module, {}, "ensemble", 5, {1: "ensemble"})
    assert list(states) == [1]
    assert module.weight.tag == {"ensemble"}
    assert module.weight.value.shape == (4, 5, 3)
    assert module.spike.value.shape == (4, 5)


# "axis_size (int) - Size of the vectorization axis. If None, the size must be inferrable from the
# vectorized function's execution context." "Raises ValueError ... if axis_size cannot be inferred."


def test_axis_size_from_the_ambient_mesh():
    with jax.set_mesh(mesh_of(4, 2)):
        module = Pair()
        vmap2_new_states(module, {})
        assert module.spike.value.shape == (4, 4)
        assert module.spike.value.sharding.spec[0] == "lanes"
        module = Pair()
        vmap2_new_states(module, {}, spmd_axis_name="model")
        assert module.spike.value.shape == (2, 4)
    with mesh_of(8, names=("data",)):
        module = Pair()
        vmap2_new_states(module, {}, spmd_axis_name="data")
        assert module.spike.value.shape == (8, 4)
        with pytest.raises(ValueError, match="cannot be inferred"):
            vmap2_new_states(Pair(), {})
    with pytest.raises(ValueError, match="axis_size=None cannot be inferred"):
        vmap2_new_states(Pair(), {})


@pytest.mark.parametrize("axis_types", ["Auto", "Explicit"])
def test_spmd_axis_name_shards_the_lanes_over_the_ambient_mesh(axis_types):
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(getattr(jax.sharding.AxisType, axis_types),) * 2)
    with jax.set_mesh(mesh):
        module = Pair()
        vmap2_new_states(module, {}, axis_size=8, spmd_axis_name="data")
    assert module.spike.value.sharding.spec[0] == "data"
    assert module.spike.value.sharding.mesh == mesh
    assert module.spike.value.addressable_shards[0].data.shape == (2, 4)
    plain = Pair()
    brainstate.random.seed(42)
    vmap2_new_states(plain, {}, axis_size=8)
    np.testing.assert_array_equal(plain.spike.value, module.spike.value)


@pytest.mark.parametrize("bad", [True, 2.0, "4", [2], None.__class__, np.float32(3), jnp.arange(2)])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_axis_size_of_a_wrong_type(function, bad):
    with pytest.raises(TypeError, match="axis_size"):
        function(Pair(), {}, axis_size=bad)
    module = Pair()
    vmap2_new_states(module, {}, axis_size=2)
    assert module.spike.value.shape == (2, 4)


@pytest.mark.parametrize("bad", [0, -1])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_axis_size_below_one(function, bad):
    with pytest.raises(ValueError, match=f"axis_size={bad}"):
        function(Pair(), {}, axis_size=bad)


def test_axis_size_may_be_a_numpy_integer():
    module = Pair()
    vmap2_new_states(module, {}, axis_size=np.int64(3))
    assert module.spike.value.shape == (3, 4)


# "A dictionary mapping axis indices (int) to brainstate.util.filter predicates"


@pytest.mark.parametrize(
    "one_filter",
    [
        brainstate.ParamState,
        OfType(brainstate.ParamState),
        lambda path, state: state.value.ndim == 2,
        PathContains("weight"),
    ],
)
def test_filters_of_every_kind(one_filter):
    module = Pair()
    states = vmap2_new_states(module, {}, axis_size=5, state_out_axes={1: one_filter})
    assert states == {1: [module.weight], 0: [module.spike]}
    assert module.weight.value.shape == (4, 5, 3)


# "A single filter (treated as {0: filter} for convenience)"


def test_single_filter_is_axis_zero():
    module = Pair()
    assert vmap2_new_states(module, {}, axis_size=5, state_out_axes=brainstate.ParamState) == {
        0: [module.weight, module.spike]
    }


# "None (default: all states assigned to axis 0, except NonBatchState which goes to axis None)"
# "States matching NonBatchState are automatically assigned to axis None (unbatched) regardless"


@pytest.mark.parametrize("axes", [None, {0: ...}, {0: NonBatchState}, {1: NonBatchState}, ...])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_non_batch_states_go_to_axis_none_regardless(function, axes):
    module = Mixed()
    states = function(module, {}, axis_size=8, state_out_axes=axes)
    assert states == {None: [module.shared], 0: [module.batched]}
    assert list(states) == [None, 0]
    assert module.shared.value.shape == (3,)


def test_no_batching_tag_and_users_none_filter():
    class Tagged(brainstate.nn.Module):
        def init_state(self):
            self.a = brainstate.ShortTermState(jnp.zeros(2), tag="INIT_NO_BATCHING")
            self.b = brainstate.LongTermState(jnp.ones(2))
            self.c = brainstate.ShortTermState(jnp.ones(2))

    module = Tagged()
    states = vmap2_new_states(module, {}, axis_size=4, state_out_axes={None: brainstate.LongTermState})
    assert states == {None: [module.a, module.b], 0: [module.c]}


# "Dictionary mapping axis indices to lists of vectorized states."


def test_returned_dictionary_holds_the_modules_own_states_and_no_empty_group():
    module = Pair()
    states = vmap2_new_states(
        module, {}, axis_size=4, state_out_axes={2: brainstate.HiddenState, -1: brainstate.ParamState}
    )
    assert list(states) == [-1, 0]
    assert states[-1][0] is module.weight
    assert states[0][0] is module.spike


# "ValueError - If state assignment is ambiguous"


@pytest.mark.parametrize("function", [*FUNCTIONS, lambda *a, **k: shardinit.shard_new_states(*a, **k)])
def test_ambiguous_filters(function):
    module = Pair()
    with pytest.raises(ValueError, match=r"weight.*ParamState.*axis 1 and of axis 0") as caught:
        function(module, {}, axis_size=8, state_out_axes={1: brainstate.ParamState, 0: PathContains("weight")})
    assert isinstance(caught.value, shardinit.AxisAssignmentError)
    assert not hasattr(module, "weight")


def test_catch_all_on_axis_zero_is_no_conflict():
    module = Pair()
    vmap2_new_states(module, {}, axis_size=5, state_out_axes={1: brainstate.ParamState, 0: ...})
    assert module.weight.value.shape == (4, 5, 3)


# "Executes the initialization axis_size times in parallel" / "Captures all newly created states"


def test_init_runs_once_in_python_and_is_no_probe():
    seen = []

    class Counting(brainstate.nn.Module):
        def init_state(self):
            seen.append(in_new_state_probe())
            self.v = brainstate.ShortTermState(brainstate.random.normal(size=(3,)))

    module = Counting()
    vmap2_new_states(module, {}, axis_size=7)
    assert seen == [False]
    assert len(np.unique(np.asarray(module.v.value))) == 21


# "Adjusts state stack levels to prevent JAX tracing leakage"


def test_no_tracer_is_left():
    module = Pair()
    with jax.checking_leaks():
        vmap2_new_states(module, {}, axis_size=4)
    for state in (module.weight, module.spike, brainstate.random.DEFAULT):
        assert not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(state.value))


# "First, NonBatchState; then custom filters; finally remaining states -> axis 0"


def test_negative_axes_count_from_the_end_of_the_batched_leaf_and_keep_their_key():
    class Ranks(brainstate.nn.Module):
        def init_state(self):
            self.vector = brainstate.ParamState(jnp.zeros(3))
            self.tree = brainstate.ParamState({"w": jnp.zeros((2, 3)), "b": jnp.zeros(3), "s": 1.0})
            self.matrix = brainstate.HiddenState(jnp.zeros((3, 4)))

    module = Ranks()
    states = vmap2_new_states(
        module, {}, axis_size=5, state_out_axes={-1: brainstate.ParamState, 1: brainstate.HiddenState}
    )
    assert list(states) == [-1, 1]
    assert module.vector.value.shape == (3, 5)
    assert {k: v.shape for k, v in module.tree.value.items()} == {"w": (2, 3, 5), "b": (3, 5), "s": (5,)}
    assert module.matrix.value.shape == (3, 5, 4)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("axis", [2, -3])
def test_axis_beyond_a_leaf(function, axis):
    module = Pair()
    with pytest.raises(ValueError, match=rf"spike.*axis={axis}.*rank=1"):
        function(module, {}, axis_size=8, state_out_axes={axis: brainstate.ShortTermState})
    assert not hasattr(module, "spike")


# The examples, verbatim but for imports.


def test_example_counter():
    class Counter(brainstate.nn.Module):
        def init_state(self):
            self.count = brainstate.ShortTermState(jnp.array(0))

    module = Counter()
    _ = vmap2_new_states(module, init_kwargs={}, axis_size=5)
    assert module.count.value.shape == (5,)


def test_example_custom_axes():
    class MyModule(brainstate.nn.Module):
        def init_state(self, size):
            self.weight = brainstate.ParamState(jnp.zeros(size))
            self.counter = brainstate.ShortTermState(0)

    module = MyModule()
    _ = vmap2_new_states(
        module,
        init_kwargs={"size": 10},
        axis_size=5,
        state_out_axes={
            1: OfType(brainstate.ParamState),  # weights on axis 1
            0: OfType(brainstate.ShortTermState),  # counter on axis 0
        },
    )
    assert module.weight.value.shape == (10, 5)
    assert module.counter.value.shape == (5,)


def test_example_non_batched():
    class MixedModule(brainstate.nn.Module):
        def init_state(self):
            self.batched = brainstate.ShortTermState(0)
            self.shared = NonBatchState(jnp.array([1, 2, 3]))

    module = MixedModule()
    _ = vmap2_new_states(module, init_kwargs={}, axis_size=5)
    assert module.batched.value.shape == (5,)
    assert module.shared.value.shape == (3,)
