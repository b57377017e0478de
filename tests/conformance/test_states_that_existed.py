"""What init may do to states that existed: brainstate 0.6's rule in the drop-ins, batching on request elsewhere."""

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brainstate import HiddenState, ParamState, ShortTermState

import shardinit
from tests.conftest import mesh_of
from tests.reference import assert_same

R = brainstate.random
AS_BRAINSTATE = [
    lambda m: shardinit.vmap2_new_states(m, {}, axis_size=8),
    lambda m: shardinit.pmap2_new_states(m, {}),
    lambda m: shardinit.shard_new_states(m, axis_size=8, rewritten="error").states,
    lambda m: shardinit.shard_new_states(m, axis_size=8, mesh=mesh_of(4, 2), rewritten="error").states,
]


class Old(brainstate.nn.Module):
    """A module with states, one of them outside of it, into which init writes."""

    def __init__(self, write):
        super().__init__()
        self.table = ParamState({"w": jnp.ones(3), "n": 1})
        self.count = HiddenState(jnp.zeros(()), tag="INIT_NO_BATCHING")
        self.shared = shardinit.NonBatchState(jnp.zeros(2))
        self.outside = [ShortTermState(jnp.zeros(2))]
        self.write = write

    def init_state(self):
        self.new = ShortTermState(R.normal(size=(2,)))
        self.write(self)


def shared_values(m):
    m.table.value = {"w": jnp.ones(3) * 2.0 + jnp.arange(3), "n": 7}
    m.count.value = jnp.array(1.0)
    m.shared.value = np.arange(2.0)
    m.outside[0].value = m.outside[0].value + 1.0
    m.outside[0].add_tag("written")


@pytest.mark.parametrize("function", AS_BRAINSTATE)
def test_what_all_lanes_share_is_kept_without_lanes_and_not_in_the_dictionary(function):
    theirs, ours = Old(shared_values), Old(shared_values)
    brainstate.transform.vmap2_new_states(theirs, {}, axis_size=8)
    R.seed(42)
    held = ours.table, ours.count, ours.shared, ours.outside[0]
    assert function(ours) == {0: [ours.new]}
    assert held == (ours.table, ours.count, ours.shared, ours.outside[0])
    for mine, reference in zip(held, (theirs.table, theirs.count, theirs.shared, theirs.outside[0]), strict=True):
        assert_same(mine.value, reference.value)
        assert (mine.tag, mine.stack_level) == (reference.tag, reference.stack_level)


def set_value(m):
    m.count.value = m.new.value.sum()


def set_one_leaf(m):
    m.table.value = {"w": m.table.value["w"], "n": R.uniform()}


def set_in_place(m):
    m.table.value["w"] = R.normal(size=(3,))


def set_shared(m):
    m.shared.value = R.normal(size=(2,))


def set_outside(m):
    m.outside[0].value = m.new.value
    m.outside.append(1)


WRITES = [set_value, set_one_leaf, set_in_place, set_shared, set_outside]


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("function", AS_BRAINSTATE)
def test_what_differs_by_lane_is_a_value_error_and_nothing_has_changed(function, write):
    module = Old(write)
    before = [(s, dict(s.value) if isinstance(s.value, dict) else s.value, s.tag) for s in module.states().values()]
    key, attributes = R.DEFAULT.value, dict(vars(module))
    with pytest.raises(ValueError, match="pre-existing state") as caught:
        function(module)
    assert isinstance(caught.value, shardinit.RewrittenStateError)
    assert R.DEFAULT.value is key
    assert {k: id(v) for k, v in vars(module).items()} == {k: id(v) for k, v in attributes.items()}
    assert len(module.outside) == 1
    for state, value, tag in before:
        assert jax.tree.all(jax.tree.map(lambda a, b: a is b, state.value, value))
        assert state.tag == tag
    module.write = lambda m: None
    assert function(module) == {0: [module.new]}


def test_the_error_names_every_such_state():
    module = Old(lambda m: (set_value(m), set_outside(m)))
    with pytest.raises(ValueError, match=r"count.*HiddenState.*float32\[\].*kind=2: count, outside/0.*rewritten="):
        shardinit.vmap2_new_states(module, {}, axis_size=8)


def test_random_states_that_existed_are_no_such_states():
    class Own(brainstate.nn.Module):
        def __init__(self):
            super().__init__()
            self.rng = R.RandomState(1)

        def init_state(self):
            self.rng.seed(3)
            self.v = ShortTermState(self.rng.normal(size=(2,)))

    module = Own()
    assert shardinit.vmap2_new_states(module, {}, axis_size=4) == {0: [module.v]}


def test_the_value_of_an_enclosing_transform_is_kept():
    counter = ShortTermState(jnp.zeros(()))

    @brainstate.transform.jit
    def run(value):
        module = Old(lambda m: setattr(counter, "value", value))
        shardinit.vmap2_new_states(module, {}, axis_size=3)
        return module.new.value.shape[0] + counter.value

    assert run(jnp.asarray(2.0)) == 5.0
    assert counter.value == 2.0

    @brainstate.transform.jit
    def refused():
        shardinit.vmap2_new_states(Old(set_value), {}, axis_size=3)

    with pytest.raises(shardinit.RewrittenStateError):
        refused()


def test_batch_is_the_default_of_shard_new_states():
    module = Old(lambda m: (set_one_leaf(m), set_outside(m)))
    states = shardinit.shard_new_states(module, axis_size=8).states
    assert states == {0: [module.new, module.table, module.outside[0]]}
    assert module.table.value["w"].shape == (8, 3)
    np.testing.assert_array_equal(module.outside[0].value, module.new.value)


def test_rewritten_of_another_kind():
    with pytest.raises(ValueError, match=r"rewritten='keep'.*'batch', 'error'"):
        shardinit.shard_new_states(Old(set_value), axis_size=8, rewritten="keep")


def test_rerun_writes_the_shared_value_again():
    module = Old(shared_values)
    result = shardinit.shard_new_states(module, axis_size=8, rewritten="error")
    module.count.value = jnp.zeros(())
    result.rerun(key=1)
    assert module.count.value == 1.0
    assert module.table.value["n"] == 7
