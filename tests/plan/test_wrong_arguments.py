"""Arguments of the wrong type, and sizes that cannot be, are told what to pass."""

import pytest

from shardinit import ArgumentError, ArgumentTypeError, LeafSpec, StateSpec, execute, plan
from tests.plan.states import Net


@pytest.mark.parametrize("given", [Net, Net(), None, 3, "net", {}], ids=lambda g: str(type(g)))
def test_what_is_no_program_is_told_to_discover(given):
    with pytest.raises(ArgumentTypeError, match=r"discover\(module\)"):
        plan(given, "cpu:8", axis_size=8)


def test_negative_sizes_name_the_state():
    with pytest.raises(ArgumentError, match=r"\('v',\).*a size is negative"):
        plan([StateSpec(("v",), "S", (LeafSpec((-3,), "float32", 4),))], "cpu:8", axis_size=8)


def test_execute_wants_what_compile_returns():
    with pytest.raises(ArgumentTypeError, match=r"got a NoneType\. Pass what compile"):
        execute(None)
