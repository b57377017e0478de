"""scripts/slurm.sbatch on a real SLURM: 2 nodes x 2 tasks x 2 emulated devices."""

import pytest

from tests.system.processes import run, wait_until

LANES = ("--axis-size", "16", "--devices", "2")


@pytest.fixture
def slow_job(slurm):
    number = slurm.submit("tests/system/targets.py:slow", *LANES)
    wait_until(lambda: slurm.job(number).log.count("slow begins") == 4, 90, "all ranks are busy")
    return number


def test_a_job_completes(slurm):
    job = slurm.finished(slurm.submit("examples/mlp96.py:build", *LANES), 120)
    assert (job.state, job.exit_code) == ("COMPLETED", "0:0"), job.log
    assert "480 states (480 arrays) x 16 lanes" in job.log
    table = [line.split() for line in job.log.splitlines() if "MiB   equal to the plan" in line]
    assert [(row[1], row[2], row[3]) for row in table] == [
        ("0", "n1", "2"),
        ("1", "n1", "2"),
        ("2", "n2", "2"),
        ("3", "n2", "2"),
    ], job.log


def test_one_task_per_node(slurm):
    arguments = ("examples/mlp96.py:build", "--axis-size", "16", "--devices", "4")
    job = slurm.finished(slurm.submit(*arguments, tasks_per_node=1), 120)
    assert (job.state, job.exit_code) == ("COMPLETED", "0:0"), job.log
    assert job.log.count("MiB   equal to the plan") == 2, job.log


def test_a_failing_rank_ends_the_job_with_its_code(slurm):
    job = slurm.finished(slurm.submit("tests/system/targets.py:failing", *LANES), 120)
    assert (job.state, job.exit_code) == ("FAILED", "4:0"), job.log
    assert job.log.count("[2] ValueError: rank 2 has had enough") == 1, job.log
    named = [line for line in job.log.splitlines() if line.startswith("shardinit: rank 2 (pid ")]
    assert len(named) == 4, job.log
    assert all("on n2) failed to initialize, exit code 4" in line for line in named), job.log


def test_scancel_ends_every_rank_within_the_grace_time(slurm, slow_job):
    run("scancel", str(slow_job), env=slurm.env)
    took = wait_until(lambda: not slurm.processes(slow_job), 20, "no process is left")
    job = slurm.finished(slow_job, 30)
    assert job.state == "CANCELLED", job
    assert job.log.count("supervisor was asked to end by SIGTERM") == 4, job.log
    assert took < 15


def test_sigterm_before_the_time_limit_is_code_13(slurm, slow_job):
    run("scancel", "--signal=TERM", str(slow_job), env=slurm.env)  # as --signal=TERM@60 does, to the steps alone
    job = slurm.finished(slow_job, 30)
    assert (job.state, job.exit_code) == ("FAILED", "13:0"), job.log
