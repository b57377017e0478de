"""Programs that a machine wrote, on one device."""

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.fuzz.compare import ONE, differences, eager
from tests.fuzz.known import is_known
from tests.fuzz.strategies import programs


@settings(max_examples=40, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(programs(most=3, sizes=(6,), settings=()), st.sampled_from(ONE))
def test_programs_on_one_device(program, target):
    assume(not is_known(program, target))
    try:
        expected = eager(program)
    except Exception:
        assume(False)
    found, _ = differences(program, expected, target)
    assert not found, f"{target}\n" + "\n".join([*found, program.source])
