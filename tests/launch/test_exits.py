"""What the end of a process means, and which of several ends was the cause."""

import signal

import pytest

from shardinit.launch.exits import RETRY_HELPS, End, cause_of, end_of
from shardinit.launch.logs import Tail


@pytest.mark.parametrize(
    ("returncode", "code", "part"),
    [
        (1, 1, "ended by itself, exit code 1: boom"),
        (3, 3, "had its plan refused, exit code 3"),
        (4, 4, "failed to initialize, exit code 4: boom"),
        (10, 10, "rank 2: boom"),
        (12, 12, "the processes disagree"),
        (13, 13, "was preempted"),
        (-signal.SIGKILL, 11, "SIGKILL, exit code 137 (by the kernel for want of memory"),
        (137, 11, "SIGKILL, exit code 137"),
        (-signal.SIGABRT, 11, "SIGABRT, exit code 134 (JAX's runtime"),
        (134, 11, "SIGABRT"),
        (-signal.SIGSEGV, 11, "SIGSEGV, exit code 139"),
        (-signal.SIGTERM, 13, "was asked to end by SIGTERM"),
        (143, 13, "was asked to end by SIGTERM"),
        (-signal.SIGINT, 13, "was asked to end by SIGINT"),
    ],
)
def test_ends(returncode, code, part):
    end = end_of(2, returncode, "rank 2", "boom")
    assert end.code == code
    assert part in end.why


def test_a_rank_that_is_done_is_no_end():
    assert end_of(0, 0, "rank 0") is None


def test_the_codes_of_which_a_retry_helps_are_stable():
    assert {10, 11, 13} == RETRY_HELPS


def test_the_cause_comes_before_its_consequences():
    abort = end_of(1, -signal.SIGABRT, "rank 1")
    lost = end_of(2, 11, "rank 2")
    killed = end_of(0, -signal.SIGKILL, "rank 0")
    assert cause_of([abort, lost, killed]) == killed
    assert cause_of([abort, lost]) == abort
    assert cause_of([End(None, 13, "asked"), killed]).code == 13


def test_the_runtimes_report_of_a_lost_peer_is_left_to_the_log(tmp_path):
    log = tmp_path / "stderr.log"
    report = [
        "before",
        "F1124 18:49:36.675 10654 client.h:80] Terminating process because the JAX distributed service detected fatal",
        "Additional GRPC error information from remote target coordination_service",
        ":UNKNOWN:Error received from peer",
        "*** Check failure stack trace: ***",
        "    @     0x7fde39440634  absl::log_internal::LogMessage::SendToLog()",
        "ValueError: mine",
        "    @     0x7fde39440634  a frame of something else",
    ]
    log.write_text("\n".join(report))
    tail = Tail(log, 0, "stderr")
    lines = tail.new_lines()
    assert lines == report[:-1]  # the last is not whole yet
    assert [line for line in lines if not tail.is_noise(line)] == ["before", "ValueError: mine"]
    assert tail.new_lines(last=True) == report[-1:]
    assert not tail.is_noise(report[-1])


def test_last_words_are_the_ranks_own(tmp_path):
    log = tmp_path / "stderr.log"
    log.write_text('shardinit: init_all_states failed\nValueError: mine\n+1.0 s planned: x\n{"event": "planned"}\n\n')
    tail = Tail(log, 0, "stderr")
    tail.new_lines()
    assert tail.last_words == "ValueError: mine"
    log.write_text(log.read_text() + "shardinit: no file no.py\nprocess 0 of 2 (plain)\n  processes  2  flag\n")
    tail.new_lines()
    assert tail.last_words == "no file no.py"
