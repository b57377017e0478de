"""Names and counts in texts: different states look different, one is one, and rules can be written as tables say."""

import re

import brainstate
import pytest

from shardinit import LeafSpec, NonBatchState, StateSpec, Topology, discover, plan, shard_new_states
from shardinit.report.diff import diff_text
from shardinit.report.page import plan_page
from shardinit.report.plan import LONGEST_NAME, groups_of, short_names
from shardinit.wording import counted, key_text, path_text

PLURAL_OF_ONE = re.compile(
    r"(?<![\d.,x*-])1 (?!bytes)(?:\w+ )?(states|arrays|lanes|devices|programs|steps|outputs|pieces)\b"
)


class Layer(brainstate.nn.Module):
    def init_state(self):
        self.w = brainstate.ParamState(brainstate.random.normal(size=(4, 3)))


class One(brainstate.nn.Module):
    def init_state(self):
        self.v = brainstate.ParamState(brainstate.random.normal(size=(3,)))


class Deep(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = [Layer() for _ in range(3)]


def state(*path, size=64):
    return StateSpec(path, "ParamState", (LeafSpec((size,), "float32", 4),))


@pytest.mark.parametrize("axis_size", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [{}, {"remainder": "pad"}, {"remainder": "replicate"}, {"strategy": "vmap"}, {"rules": [("v", "replicate")]}],
    ids=str,
)
def test_one_is_one(axis_size, options):
    topologies = [Topology("cpu", 1), Topology("cpu", 2), Topology("cpu", 2, (("a", 2),)), Topology("cpu", 1, ())]
    plans = [plan(discover(One()), topology, axis_size=axis_size, **options) for topology in topologies]
    texts = [*map(str, plans), diff_text(plans[0], plans[1]), str(discover(One()))]
    for text in texts:
        assert not PLURAL_OF_ONE.search(text), text


def test_one_is_one_in_a_receipt():
    result = shard_new_states(One(), axis_size=1)
    for text in (str(result), repr(result)):
        assert not PLURAL_OF_ONE.search(text), text
    assert "1 state (1 array) x 1 lane in" in str(result)
    assert "on one device" in str(result)


def test_names_are_the_globs_that_rules_take():
    program = discover(Deep())
    (group,) = groups_of(plan(program, Topology("cpu", 1), axis_size=2))
    assert group.name == "layers/*/w"
    planned = plan(program, Topology("cpu", 1), axis_size=2, rules=[(group.name, "replicate")])
    assert {s.reason for s in planned.states} == {"rule (layers/*/w -> replicate): every device holds all of it"}
    assert "layers/*/w" in str(planned)
    assert "layers." not in str(planned) + plan_page(planned)


def test_a_whole_name_is_its_own_glob():
    odd = state("a", "w[0] ?", size=2)
    planned = plan([odd, state("a", "v")], "cpu:8", axis_size=8, rules=[(odd.name, "replicate")])
    assert [s.reason.startswith("rule") for s in planned.states] == [True, False]


def test_different_long_names_stay_different():
    names = [f"{'a' * 200}{n}{'b' * 200}" for n in range(3)]
    short = short_names(names)
    assert len(set(short.values())) == 3
    assert short_names(["x" * 100])["x" * 100] == f"{'x' * (LONGEST_NAME // 2)}…{'x' * (LONGEST_NAME // 2)}"
    assert short_names(["x"]) == {"x": "x"}


def test_states_under_different_keys_are_different_rows():
    specs = [
        state("E", f"(Expon, (3200,), {{'tau': '{tau}. ms'}}) // (COBA, (), {{'E': '0. mV'}})", "syn", "g")
        for tau in (5, 10)
    ]
    groups = groups_of(plan(specs, "cpu:8", axis_size=8))
    assert [g.count for g in groups] == [1, 1]
    assert len({g.name for g in groups}) == 2


def test_classes_in_paths_are_their_names():
    assert key_text(brainstate.ParamState) == "ParamState"
    assert key_text(state) == "state"
    assert key_text((brainstate.ParamState, 3)) == "(ParamState, 3)"
    assert key_text("(<class 'brainpy.state.Expon'>, ()) // (<class 'a.f.<locals>.B'>, ())") == "(Expon, ()) // (B, ())"
    assert key_text(object()) == "<object object>"
    assert path_text(("a", 0, "w")) == "a/0/w"
    assert path_text(()) == "(not held by the module)"


def test_a_state_under_a_class_is_named_by_it():
    module = brainstate.nn.Module()
    module.parts = {Layer: Layer()}
    module.others = {str((One, 3)): One()}
    assert {s.path for s in discover(module).specs} == {("parts", "Layer", "w"), ("others", "(One, 3)", "v")}


class WithAttribute(brainstate.nn.Module):
    def init_state(self):
        self.v = brainstate.ParamState(brainstate.random.normal(size=(3,)))
        self.shared = NonBatchState(1.0)
        self.outside = brainstate.random.normal(size=(2,))


def test_a_plan_counts_states_as_the_receipt_does():
    result = shard_new_states(WithAttribute(), axis_size=8)
    assert result.receipt.states == 2
    assert str(result.plan).startswith("2 states and 1 array in attributes, axis_size=8")
    assert "2 states (2 arrays) x 8 lanes" in str(result)
    page = plan_page(result.plan)
    assert '<div class="value">2</div><div class="remark">2 arrays, 1 more in attributes</div>' in page


def test_counts():
    assert [counted(n, "state") for n in (0, 1, 2)] == ["0 states", "1 state", "2 states"]
