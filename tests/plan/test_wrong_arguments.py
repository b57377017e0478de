"""Arguments of the wrong type, and sizes that cannot be, are told what to pass."""

import pytest

from shardinit import ArgumentError, ArgumentTypeError, LeafSpec, StateSpec, execute, plan
from tests.plan.states import Net


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
