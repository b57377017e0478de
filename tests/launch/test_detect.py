"""Launchers' environments, as they really are, and what is made of them."""

import os
import re
import subprocess
import sys
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardinit.errors import LaunchError
from shardinit.launch.detect import NAMES, detect
from shardinit.launch.environments import LAUNCHERS
from shardinit.launch.launch_spec import LaunchSpec, parse_address
from tests.launch.environments import (
    GKE_TPU,
    INDEXED_JOB,
    INTERACTIVE,
    JOBS,
    KUBEFLOW,
    MULTISLICE,
    OPENMPI_4,
    PLAIN,
    SBATCH,
    SKYPILOT,
    SLURM,
    SLURM_PORT,
    XPK_GPU,
    failure,
    port_of,
    without,
)


@pytest.mark.parametrize(("env", "coordinator", "processes", "process_id", "launcher"), JOBS.values(), ids=JOBS)
def test_each_launcher(env, coordinator, processes, process_id, launcher):
    spec = detect(env)
    found = (spec.coordinator, spec.processes, spec.process_id, spec.launcher)
    assert found == (coordinator, processes, process_id, launcher)
    assert (spec.local_device_ids, spec.warnings, spec.is_local) == (None, (), False)
    assert spec.is_distributed
    assert spec.control_port == int(coordinator.rpartition(":")[2]) + 1


@pytest.mark.parametrize(
    ("env", "place"),
    [
        (SLURM, (2, 2, 0)),
        (OPENMPI_4, (None, 4, 1)),
        (XPK_GPU, (2, 1, 0)),
        (SKYPILOT, (2, 1, 0)),
        (INDEXED_JOB, (None, 1, 0)),
        (MULTISLICE, (8, 1, 0)),
        (PLAIN, (None, None, None)),
        ({**PLAIN, "JAX_COORDINATOR_ADDRESS": "localhost:1"}, (1, 4, 2)),
        ({**SLURM, **PLAIN}, (2, 2, 0)),
        ({**SLURM, "SLURM_NODEID": "1", "SLURM_STEP_TASKS_PER_NODE": "3,1"}, (2, 1, 0)),
    ],
)
def test_nodes_processes_on_this_one_and_local_rank(env, place):
    spec = detect(env)
    assert (spec.nodes, spec.processes_on_node, spec.local_rank) == place
    assert spec.is_local == (spec.nodes == 1)


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"NUM_PROCESSES": "4", "PROCESS_ID": "1"},
        {"NNODES": "2", "NODE_RANK": "1"},
        {"NUM_PROCESSES": "x"},
        {"COORDINATOR_ADDRESS": "ray-head:6379"},
        {"JAX_COORDINATOR_PORT": "1234"},
        {"JAX_COORDINATOR_ADDRESS": "", "JAX_NUM_PROCESSES": " ", "JAX_COORDINATOR_IP": ""},
        {"JAX_NUM_PROCESSES": "1"},
        {**PLAIN, "JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"},
        {"SKYPILOT_NUM_NODES": "1", "SKYPILOT_NODE_RANK": "0", "SKYPILOT_NODE_IPS": "10.0.0.1"},
        {"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"},
        {"TPU_PROCESS_ADDRESSES": "local", "TPU_WORKER_HOSTNAMES": "localhost"},
        {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"},
        INTERACTIVE,
        {**SBATCH, "SLURM_NTASKS": "1", "SLURM_JOB_NUM_NODES": "1"},
        {**without(SBATCH, "SLURM_NTASKS"), "SLURM_JOB_NUM_NODES": "1"},
        {**INTERACTIVE, "SLURM_STEP_ID": "0", "JAX_COORDINATOR_ADDRESS": "n1"},
    ],
)
def test_one_process(env):
    spec = detect(env)
    assert (spec.coordinator, spec.processes, spec.process_id) == (None, 1, 0)
    assert (spec.is_local, spec.is_distributed, spec.control_port, spec.warnings) == (True, False, None, ())


def test_a_lone_pod_of_an_indexed_job_runs_alone_and_says_so():
    spec = detect({"JOB_COMPLETION_INDEX": "2"})
    assert (spec.processes, spec.launcher) == (1, "none")
    [warning] = spec.warnings
    assert "JOB_COMPLETION_INDEX=2" in warning
    assert "JAX_NUM_PROCESSES" in warning


def test_an_exported_address_is_completed_by_the_scheduler():
    spec = detect({**SLURM, "JAX_COORDINATOR_ADDRESS": "login:9000"})
    assert spec.sources[:3] == (
        ("coordinator", "login:9000", "JAX_COORDINATOR_ADDRESS"),
        ("processes", "4", "SLURM_STEP_NUM_TASKS"),
        ("process_id", "2", "SLURM_PROCID"),
    )


@pytest.mark.parametrize(
    ("env", "coordinator", "source"),
    [
        ({**SLURM, "JAX_COORDINATOR_ADDRESS": "n9"}, f"n9:{SLURM_PORT}", "port: SLURM_JOB_ID and SLURM_STEP_ID"),
        ({**SLURM, "JAX_COORDINATOR_PORT": "7000"}, "gpu017:7000", "SLURM_STEP_NODELIST, port: JAX_COORDINATOR_PORT"),
        ({**SLURM, "SLURM_STEP_ID": "1"}, f"gpu017:{SLURM_PORT + 14}", "port: SLURM_JOB_ID and SLURM_STEP_ID"),
        ({**PLAIN, "JAX_COORDINATOR_ADDRESS": "fd00::1"}, "[fd00::1]:12620", "JAX_COORDINATOR_ADDRESS, port: default"),
        ({**PLAIN, "JAX_COORDINATOR_ADDRESS": "[fd00::1]"}, "[fd00::1]:12620", "port: default"),
        ({**PLAIN, "JAX_COORDINATOR_ADDRESS": "[fd00::1]:9"}, "[fd00::1]:9", "JAX_COORDINATOR_ADDRESS"),
        ({**KUBEFLOW, "JAX_COORDINATOR_PORT": "1"}, "job-worker-0:6666", "COORDINATOR_ADDRESS, port: COORDINATOR_PORT"),
        ({**GKE_TPU, "TPU_PROCESS_ADDRESSES": "a:8476,b:8476"}, "a:12620", "TPU_PROCESS_ADDRESSES, port: default"),
        (
            {**OPENMPI_4, "OMPI_MCA_orte_hnp_uri": "13.0;tcp6://[fe80::b9b,fd00::2]:43370"},
            f"[fe80::b9b]:{port_of('13.0')}",
            "uri",
        ),
        (
            {**OPENMPI_4, "OMPI_COMM_WORLD_LOCAL_SIZE": "8"},
            f"127.0.0.1:{port_of('1531576320.0')}",
            "OMPI_COMM_WORLD_LOCAL_SIZE, port: OMPI",
        ),
    ],
)
def test_the_port_is_added_and_its_source_said(env, coordinator, source):
    spec = detect(env)
    assert spec.coordinator == coordinator
    assert source in spec.sources[0][2]


def test_ports_of_slurm_stay_in_range_and_leave_room():
    for job, step in product((1, 4711, 2**31, 2**32 - 1), (0, 1, 77)):
        spec = detect({**SLURM, "SLURM_JOB_ID": str(job), "SLURM_STEP_ID": str(step)})
        port = spec.control_port - 1
        assert 61440 <= port <= 65533
        assert port % 2 == 0


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"coordinator": "n9:1"}, ("n9:1", 4, 2)),
        ({"processes": 8}, ("10.0.0.1:9000", 8, 2)),
        ({"process_id": 0}, ("10.0.0.1:9000", 4, 0)),
        ({"coordinator": "n9", "processes": 3, "process_id": 1}, (f"n9:{SLURM_PORT}", 3, 1)),
        ({"processes": 1}, (None, 1, 0)),
    ],
)
def test_flags_win_without_contradiction(flags, expected):
    spec = detect({**SLURM, **PLAIN}, **flags)
    assert (spec.coordinator, spec.processes, spec.process_id) == expected


def test_flags_alone():
    spec = detect({}, coordinator="n1:9000", processes=2, process_id=1)
    assert (spec.launcher, spec.sources[0]) == ("flags", ("coordinator", "n1:9000", "--coordinator"))
    assert "Set: --processes=2. Missing: the process id and the coordinator." in failure({}, processes=2)
    assert "--process-id=2 is outside of 0 to 1" in failure({}, coordinator="n1", processes=2, process_id=2)
    assert "--processes=True is not a whole number" in failure({}, processes=True)


def test_the_innermost_starter_counts():
    inside = {**SLURM, **OPENMPI_4, "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}
    assert (detect(inside).launcher, detect(inside).processes) == ("openmpi", 8)
    alone = {"SKYPILOT_NUM_NODES": "1", "SKYPILOT_NODE_RANK": "0", "SKYPILOT_NODE_IPS": "10.0.0.1"}
    assert detect({**SLURM, **alone}).launcher == "slurm"


def test_a_step_of_one_task_contradicts_nobody():
    shell = {**INTERACTIVE, "SLURM_STEP_ID": "0"}
    spec = detect({**shell, **PLAIN})
    assert (spec.launcher, spec.processes, spec.process_id) == ("plain", 4, 2)


def test_a_batch_script_may_start_processes_by_itself():
    assert detect({**SBATCH, **PLAIN}).launcher == "plain"


@pytest.mark.parametrize("how", ["flag", "variable"])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("none", (None, 1, 0, "none")),
        ("plain", ("10.0.0.1:9000", 8, 2, "plain")),
        ("slurm", (f"gpu017:{SLURM_PORT}", 4, 2, "slurm")),
        ("local", ("10.0.0.1:9000", 8, 2, "local")),
    ],
)
def test_a_named_launcher_is_the_only_one(name, expected, how):
    env = {**SLURM, **PLAIN, "JAX_NUM_PROCESSES": "8"}
    spec = detect(env, launcher=name) if how == "flag" else detect({**env, "SHARDINIT_LAUNCHER": name})
    assert (spec.coordinator, spec.processes, spec.process_id, spec.launcher) == expected


def test_the_flag_wins_over_the_variable():
    assert detect({**SLURM, "SHARDINIT_LAUNCHER": "none"}, launcher="slurm").launcher == "slurm"


def test_none_sees_only_flags():
    env = {**SLURM, "JAX_NUM_PROCESSES": "x", "JAX_COORDINATOR_PORT": "x", "JAX_LOCAL_DEVICE_IDS": "x"}
    assert detect(env, launcher="none").processes == 1
    spec = detect(env, launcher="none", coordinator="n1", processes=2, process_id=1)
    assert (spec.coordinator, spec.processes) == ("n1:12620", 2)


def test_children_of_the_supervisor_see_plain_variables_and_are_local():
    plain = {**PLAIN, "JAX_COORDINATOR_ADDRESS": "127.0.0.1:9000", "SHARDINIT_LAUNCHER": "local"}
    spec = detect({**SLURM, **OPENMPI_4, **plain, "SLURM_GPUS_ON_NODE": "3"})
    assert (spec.launcher, spec.processes, spec.process_id) == ("local", 4, 2)
    assert (spec.is_local, spec.nodes, spec.processes_on_node, spec.local_rank) == (True, 1, 4, 2)
    assert (spec.local_device_ids, spec.warnings) == (None, ())
    assert detect({**SLURM, "SHARDINIT_LAUNCHER": "local"}).processes == 1


@pytest.mark.parametrize("name", [launcher.name for launcher in LAUNCHERS])
def test_a_named_launcher_that_is_not_there_says_what_it_needs(name):
    assert re.search(rf"--launcher={name} was asked for.* It needs \w+", failure({}, launcher=name))


def test_what_is_printed():
    assert str(detect({**SLURM, "SLURM_GPUS_ON_NODE": "2"})) == (
        "process 2 of 4 (slurm)\n"
        f"  coordinator    gpu017:{SLURM_PORT}  SLURM_STEP_NODELIST, port: SLURM_JOB_ID and SLURM_STEP_ID\n"
        "  processes      4             SLURM_STEP_NUM_TASKS\n"
        "  process id     2             SLURM_PROCID\n"
        "  local devices  0             one GPU per process: SLURM_GPUS_ON_NODE shows 2, this is local rank 0"
    )
    assert str(detect({})).splitlines()[1] == "  processes      1    default: no launcher"


@pytest.mark.parametrize("env", [job[0] for job in JOBS.values()], ids=JOBS)
def test_detection_is_pure(env):
    before, given_env = dict(os.environ), dict(env)
    assert detect(given_env) == detect(dict(reversed(given_env.items())))
    assert (given_env, dict(os.environ)) == (env, before)
    assert hash(detect(env)) == hash(detect(env))


def test_all_ranks_agree_on_the_job():
    specs = [
        detect({**SLURM, "SLURM_PROCID": str(r), "SLURM_NODEID": str(r // 2), "SLURMD_NODENAME": f"gpu01{7 + r // 2}"})
        for r in range(4)
    ]
    assert len({(s.coordinator, s.processes, s.launcher) for s in specs}) == 1
    assert [s.process_id for s in specs] == [0, 1, 2, 3]


@given(st.from_regex(r"[a-z0-9.-]{1,12}|[0-9a-f]{1,4}::[0-9a-f]{1,4}", fullmatch=True), st.integers(0, 99999))
def test_addresses_survive_being_written(host, port):
    written = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    assert str(parse_address(written, "X")) == written
    assert parse_address(host, "X").host == host


@given(
    st.dictionaries(
        st.sampled_from(sorted({name for job in JOBS.values() for name in job[0]} | {"JAX_LOCAL_DEVICE_IDS"})),
        st.sampled_from(["", "0", "1", "2", "4", "n1", "n1:9000", "2(x2)", "n[1-2]", "10.0.0.1", "x"]),
    )
)
def test_any_variables_give_a_job_that_can_be_or_a_launch_error(env):
    try:
        spec = detect(env)
    except LaunchError:
        return
    assert isinstance(spec, LaunchSpec)
    assert 0 <= spec.process_id < spec.processes
    assert (spec.coordinator is not None) == spec.is_distributed
    assert spec.launcher in (*NAMES, "flags")


def test_detection_needs_no_jax():
    code = "import sys, shardinit.launch.detect; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
