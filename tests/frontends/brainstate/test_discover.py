"""Discovery: one abstract pass that leaves everything as it was."""

import subprocess
import sys

import brainstate
import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brainstate import HiddenState, ParamState, ShortTermState

import shardinit
from tests.modules import Draws, Nested, Values
from tests.reference import assert_like_brainstate, assert_same


def initialize(module, **options):
    return shardinit.shard_new_states(module, axis_size=8, **options)


def test_makes_no_array_and_changes_nothing():
    module = Nested()
    vars_before = {k: id(v) for k, v in vars(module).items()}
    key = brainstate.random.DEFAULT._value
    before = jax.live_arrays()
    program = shardinit.discover(module)
    assert len(jax.live_arrays()) == len(before)
    assert {k: id(v) for k, v in vars(module).items()} == vars_before
    assert brainstate.random.DEFAULT._value is key
    assert not hasattr(module.first, "v")
    assert len(program.specs) == 8


def test_specs():
    program = shardinit.discover(Nested(), state_tag="t")
    by_name = {s.name: s for s in program.specs}
    assert set(by_name) == {
        "first/v", "layers/0/v", "layers/1/v", "layers/2/v", "by_name/a/v", "sum", "double", "(not held by the module)",
    }  # fmt: skip
    spec = by_name["layers/2/v"]
    assert (spec.path, spec.state_class, spec.tags, spec.kind) == (("layers", "2", "v"), "HiddenState", ("t",), "new")
    assert spec.leaves == (shardinit.LeafSpec((5,), "float32", 4),)


def test_no_backend_is_started():
    code = (
        "import brainstate, jax.numpy as jnp, shardinit\n"
        "class M(brainstate.nn.Module):\n"
        "    def init_state(self):\n"
        "        self.v = brainstate.ShortTermState(brainstate.random.normal(size=(3,)) * 2 + jnp.zeros(3))\n"
        "program = shardinit.discover(M())\n"
        "print(shardinit.plan(program, shardinit.Topology('cpu', 8), axis_size=16).bytes_per_device)\n"
    )
    env = {"JAX_PLATFORMS": "none_such", "PATH": "", "HOME": "/tmp"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert done.stdout == "24\n", done.stderr


def test_a_random_state_that_was_never_seeded():
    brainstate.random.DEFAULT._value = np.array([1, 2], np.uint32)
    theirs, ours = Draws(), Draws()
    initialize(ours)
    brainstate.random.DEFAULT._value = np.array([1, 2], np.uint32)
    brainstate.transform.vmap2_new_states(theirs, {}, axis_size=8)
    assert_same(ours.normal.value, theirs.normal.value)


class NeedsConcreteValues(brainstate.nn.Module):
    """What real neuron models do with values that do not depend on the lane."""

    def init_state(self):
        tau = jnp.linspace(5.0, 10.0, 4) * 2.0
        self.steps = int(jnp.ceil(jnp.max(tau)))
        self.decay = ShortTermState(np.exp(-1.0 / np.asarray(tau)))
        if jnp.all(tau > 1.0):
            self.v = HiddenState(brainstate.random.normal(size=(self.steps,)))
        self.grid = ShortTermState(jnp.arange(jnp.asarray(3) + 2))
        self.scale = ShortTermState(float(tau[1]) * brainstate.random.uniform(size=(2,)))
        self.picked = ShortTermState(brainstate.random.normal(size=(5,))[np.asarray(jnp.array([0, 2]))])
        self.power = ShortTermState(brainstate.random.uniform(size=(3,)) ** jnp.asarray(3))
        self.listed = ShortTermState(jnp.array(tau.tolist()))
        self.unit = ShortTermState(np.asarray((tau * u.ms).mantissa))


def test_concrete_values_of_what_all_lanes_share():
    module, result = assert_like_brainstate(NeedsConcreteValues, initialize, axis_size=8)
    assert module.steps == 20
    assert any("test_discover.py" in note and "evaluated on the way" in note for note in result.receipt.notes)


@pytest.mark.parametrize(
    ("ask", "what"),
    [
        (np.asarray, "np.asarray"),
        (lambda x: int(x[0]), "int"),
        (lambda x: float(x[0]), "float"),
        (lambda x: x[0] > 0 and 1, "branch"),
        (lambda x: x.tolist(), "tolist"),
    ],
)
def test_concrete_values_of_what_differs_by_lane(ask, what):
    class Asks(brainstate.nn.Module):
        def init_state(self):
            self.v = ShortTermState(ask(brainstate.random.normal(size=(3,))))

    with pytest.raises(shardinit.ConcreteValueError, match=r"differs by lane.*test_discover\.py:\d+") as caught:
        initialize(Asks())
    assert what in str(caught.value)


def test_arrays_in_attributes_come_out_concrete():
    class Attributes(brainstate.nn.Module):
        def init_state(self):
            self.mask = jnp.tri(3)
            self.pair = (jnp.ones(2), [jnp.zeros(3)])
            self.table = {"delays": brainstate.random.randint(0, 5, size=(4,)), "n": 3}
            self.quantity = jnp.ones(2) * u.mV
            scale = jnp.full((2,), 3.0)
            self.closure = lambda: scale
            self.v = HiddenState(brainstate.random.normal(size=(3,)))

    module = Attributes()
    result = initialize(module)
    np.testing.assert_array_equal(module.mask, jnp.tri(3))
    assert isinstance(module.pair[0], jax.Array)
    assert not isinstance(module.pair[1][0], jax.core.Tracer)
    np.testing.assert_array_equal(module.closure(), [3.0, 3.0])
    assert u.get_unit(module.quantity) == u.mV
    assert not isinstance(u.get_mantissa(module.quantity), jax.core.Tracer)
    assert module.table["delays"].shape == (8, 4)
    assert module.table["n"] == 3
    assert any("table/delays" in note and "axis 0" in note for note in result.receipt.notes)
    assert result.states == {0: [module.v]}


def test_rewritten_states_are_batched():
    class Rewrites(brainstate.nn.Module):
        def __init__(self):
            super().__init__()
            self.random = ParamState(jnp.zeros(3))
            self.zeros = ParamState(jnp.ones(2))
            self.read = ParamState(jnp.arange(3.0))

        def init_state(self):
            self.random.value = brainstate.random.normal(size=(3,))
            self.zeros.value = jnp.zeros(2)
            self.new = ShortTermState(self.read.value * 2.0 + self.random.value)

    module = Rewrites()
    result = initialize(module)
    assert module.random.value.shape == (8, 3)
    assert module.zeros.value.shape == (8, 2)
    assert module.read.value.shape == (3,)
    np.testing.assert_array_equal(module.new.value, jnp.arange(3.0) * 2.0 + module.random.value)
    assert result.states == {0: [module.new, module.random, module.zeros]}


def test_second_initialization_of_the_same_module():
    module = Nested()
    initialize(module)
    first = module.first.v
    initialize(module)
    assert module.first.v is not first
    assert module.first.v.value.shape == (8, 3)


def test_random_value_on_axis_none_is_refused():
    class Shared(brainstate.nn.Module):
        def init_state(self):
            self.noise = shardinit.NonBatchState(brainstate.random.normal(size=(3,)))

    with pytest.raises(shardinit.LaneValueError, match=r"noise.*NonBatchState.*float32\[3\].*axis None"):
        initialize(Shared())


class OneSeed(brainstate.nn.Module):
    def init_state(self):
        self.rng = brainstate.random.RandomState(3)
        self.own = ShortTermState(self.rng.normal(size=(3,)))
        self.key = ShortTermState(jax.random.normal(jax.random.key(0), (2,)))
        self.good = ShortTermState(brainstate.random.normal(size=(2,)))


class Reseeds(brainstate.nn.Module):
    def init_state(self):
        brainstate.random.seed(0)
        self.v = ShortTermState(brainstate.random.normal(size=(3,)))


@pytest.mark.parametrize(("make", "names"), [(OneSeed, ("own", "key")), (Reseeds, ("v",))])
def test_the_same_numbers_on_every_lane_are_named(make, names):
    module, result = assert_like_brainstate(make, initialize, axis_size=8)
    note = next(n for n in result.receipt.notes if n.startswith("the same random numbers on every lane"))
    assert all(name in note for name in names)
    assert "good" not in note
    assert np.ptp(np.asarray(getattr(module, names[0]).value), axis=0).max() == 0


def test_numpy_draws_are_named():
    class Host(brainstate.nn.Module):
        def init_state(self):
            self.v = ShortTermState(np.random.rand(3))

    result = initialize(Host())
    assert any("NumPy" in note for note in result.receipt.notes)


def test_init_that_draws_nothing_leaves_the_random_state():
    class Still(brainstate.nn.Module):
        def init_state(self):
            self.v = ShortTermState(jnp.zeros(3))

    before = brainstate.random.DEFAULT.value
    initialize(Still())
    assert brainstate.random.DEFAULT.value is before


def test_keys_of_every_kind():
    class Keys(brainstate.nn.Module):
        def init_state(self):
            keys = brainstate.random.split_key(4)
            self.layers = [ShortTermState(jax.random.normal(keys[i], (3,))) for i in range(4)]
            base = brainstate.random.split_key()
            self.folded = [ShortTermState(jax.random.normal(jax.random.fold_in(base, i), (3,))) for i in range(5)]
            self.mapped = ShortTermState(jax.vmap(lambda k: jax.random.normal(k, (2,)))(keys))
            a, b, c = jax.random.split(base, 3)
            self.tail = ShortTermState(jax.random.uniform(c, (2,)) + jax.random.uniform(b, (2,)))
            self.raw = ShortTermState(jax.random.key_data(a))
            self.reversed = ShortTermState(jax.random.normal(keys[::-1][1], (3,)))
            grid = jax.random.split(a, (2, 3))
            self.grid = ShortTermState(jax.random.normal(grid[1, 2], (3,)))
            self.dynamic = ShortTermState(jax.random.normal(jax.random.fold_in(a, jnp.arange(3).sum()), (2,)))
            self.held = ShortTermState(keys[2])

    assert_like_brainstate(Keys, initialize, axis_size=8)
    with jax.threefry_partitionable(False):
        assert_like_brainstate(Keys, initialize, axis_size=8)


def test_values_module_on_the_default_device():
    module, _ = assert_like_brainstate(Values, lambda m: shardinit.vmap2_new_states(m, {}, axis_size=2), axis_size=2)
    assert not module.array.value.committed
