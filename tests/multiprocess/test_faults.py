"""Every fault of ``tests/system/faults.py``, in jobs of two processes: code, culprit, nothing left, soon."""

import pytest

from tests.system.faults import FAULTS, JOIN_SECONDS, run_fault

# What hinders joining has the deadline to join; a stopped rank counts as dead after 10 s.
LIMITS = {4: 10.0, 1: 10.0, 11: 15.0, 13: 10.0, -9: 15.0, 10: JOIN_SECONDS + 10.0, 12: 60.0}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault(fault):
    outcome = run_fault(fault, 2)
    assert outcome.left == 0, outcome.output
    assert fault.code in outcome.codes, outcome.output
    killed = {-9} if "supervisor" in fault.name else set()
    assert set(outcome.codes) <= {fault.code} | killed, outcome.output
    assert outcome.named or not fault.culprit, outcome.output
    assert outcome.seconds < LIMITS[fault.code], outcome.output


def test_a_process_that_is_left_over_would_be_seen(tmp_path):
    """The harness finds what escapes: bare JAX leaves a stopped process and the one that waits for it."""
    fault = next(fault for fault in FAULTS if fault.name == "SIGSTOP of a rank")
    outcome = run_fault(fault, 2, bare=True, longest=8.0)
    assert outcome.left == 2
    assert not outcome.named
