"""Arguments of the wrong type, and sizes that cannot be, are told what to pass."""

import brainstate
import jax.numpy as jnp
import pytest

from shardinit import (
    ArgumentError,
    ArgumentTypeError,
    LeafSpec,
    StateSpec,
    Topology,
    certify,
    compile,
    discover,
    execute,
    plan,
    shard_new_states,
)
from tests.planner.states import Net


@pytest.mark.parametrize("given", [Net, Net(), None, 3, "net", {}], ids=lambda g: str(type(g)))
def test_what_is_no_program_is_told_to_discover(given):
    with pytest.raises(ArgumentTypeError, match=r"discover\(module\)"):
        plan(given, "cpu:8", axis_size=8)


def test_execute_wants_what_compile_returns():
    with pytest.raises(ArgumentTypeError, match=r"got a NoneType\. Pass what compile"):
        execute(None)


def test_more_devices_than_anyone_has_are_refused():
    with pytest.raises(ArgumentError, match=r"devices=99999999999999999999 is too large\. Use at most 16777216"):
        plan([], "cpu:99999999999999999999", axis_size=8)


def test_specs_of_impossible_sizes_name_the_state():
    for size in (-3, 2**63):
        with pytest.raises(ArgumentError, match=r"\('v',\).*each size must be between 0 and 2\*\*63 - 1"):
            plan([StateSpec(("v",), "S", (LeafSpec((size,), "float32", 4),))], "cpu:8", axis_size=8)


class Ctor(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = brainstate.ParamState(jnp.ones(3))


PROGRAM = discover(Net())
WRONG = {
    "a class": (lambda: discover(Net), r"module is the class Net, not an instance\. Pass .*Net\(\)"),
    "a filter": (lambda: discover(Net(), state_out_axes=3), r"filter 3, an int\. Pass a dictionary of axis to filter"),
    "a mesh": (lambda: compile(PROGRAM, plan(PROGRAM, "cpu:8", axis_size=8), 3), r"mesh is an int\. Pass a jax"),
    "a key": (
        lambda: execute(compile(PROGRAM, plan(PROGRAM, "cpu:8", axis_size=8)), key="a"),
        r"key='a' is a str.*Pass an int seed",
    ),
    "no plan": (lambda: certify(None), r"certify got a NoneType\. Pass what plan"),
    "a timeout": (lambda: plan(PROGRAM, "cpu:8", axis_size=8).certify(timeout="a"), r"timeout='a' is to be seconds"),
    "devices as text": (lambda: Topology("cpu", "8"), r"devices='8' is a str\. Pass an int"),
    "a number of devices": (lambda: Topology.from_devices(8), r"devices is an int\. Pass a list of devices"),
    "devices as a mesh": (lambda: Topology.from_mesh([]), r"mesh is a list\. Pass a jax\.sharding\.Mesh"),
    "a path as text": (lambda: plan([StateSpec("v", "S", ())], "cpu:8", axis_size=8), "path must be a tuple of str"),
    "shapes": (lambda: plan([StateSpec(("v",), "S", ((3,),))], "cpu:8", axis_size=8), "leaves LeafSpecs"),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
def test_wrong_types_are_told_what_to_pass(case):
    call, message = case
    with pytest.raises(ArgumentTypeError, match=message):
        call()


def test_an_object_with_its_own_static_init_is_no_class():
    class Maker:
        @staticmethod
        def init_all_states():
            Maker.v = brainstate.ParamState(jnp.ones(3))

    assert [s.state_class for s in discover(Maker).specs] == ["ParamState"]


def test_a_module_that_makes_no_state_is_told_so():
    text = str(shard_new_states(Ctor(), axis_size=8))
    assert "init_all_states created no state; what a constructor created stays as it is" in text
    assert "0 unique programs, 0 of them compiled before" in text
    assert "0 B on no device" in text
