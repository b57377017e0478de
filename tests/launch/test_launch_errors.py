"""Variables that do not say how many processes there are, and which this one is."""

import re

import pytest

from shardinit.errors import ShardInitError
from shardinit.launch.detect import detect
from tests.launch.environments import (
    AXLEARN,
    GKE_TPU,
    INDEXED_JOB,
    INTERACTIVE,
    JOBSET,
    KUBEFLOW,
    MAXTEXT,
    MULTISLICE,
    OPENMPI_4,
    OPENMPI_5,
    PLAIN,
    SBATCH,
    SKYPILOT,
    SLURM,
    SLURM_PORT,
    failure,
    without,
)

HALF_SET = {
    "rank without count": (without(PLAIN, "JAX_NUM_PROCESSES"), ["JAX_PROCESS_ID=2", "the number of processes"]),
    "count without rank": (without(PLAIN, "JAX_PROCESS_ID"), ["JAX_NUM_PROCESSES=4", "process id", "0 to 3"]),
    "no coordinator": (without(PLAIN, "JAX_COORDINATOR_ADDRESS"), ["JAX_COORDINATOR_ADDRESS=HOST:12620"]),
    "coordinator alone": ({"JAX_COORDINATOR_ADDRESS": "n1"}, ["JAX_COORDINATOR_ADDRESS=n1", "JAX_PROCESS_ID"]),
    "maxtext": (without(MAXTEXT, "NNODES"), ["JAX_COORDINATOR_IP=10.0.0.7", "NODE_RANK=3", "--processes"]),
    "axlearn": (without(AXLEARN, "PROCESS_ID"), ["NUM_PROCESSES=16", "--process-id"]),
    "generic": (without(KUBEFLOW, "NUM_PROCESSES"), ["COORDINATOR_ADDRESS=job-worker-0", "PROCESS_ID=1"]),
    "kubernetes": (without(INDEXED_JOB, "JAX_NUM_PROCESSES"), ["JOB_COMPLETION_INDEX=3", "JAX_NUM_PROCESSES=4"]),
    "kubernetes address": (without(INDEXED_JOB, "JAX_COORDINATOR_ADDRESS"), ["JAX_COORDINATOR_ADDRESS=HOST"]),
    "skypilot": (without(SKYPILOT, "SKYPILOT_NUM_NODES"), ["SKYPILOT_NODE_RANK=1", "the number of processes"]),
    "openmpi": (without(OPENMPI_4, "OMPI_MCA_orte_hnp_uri", "PMIX_NAMESPACE"), ["Missing: the coordinator."]),
    "tpu": (without(GKE_TPU, "TPU_WORKER_ID"), ["TPU_WORKER_HOSTNAMES", "TPU_WORKER_ID", "scripts/tpu_pod.sh"]),
    "multislice": (without(MULTISLICE, "MEGASCALE_SLICE_ID"), ["in 2 slices", "MEGASCALE_SLICE_ID is not set"]),
    "megascale": (without(MULTISLICE, "MEGASCALE_COORDINATOR_ADDRESS"), ["Missing: the coordinator."]),
    "jobset": (without(JOBSET, "PROCESSES_IN_JOB"), ["JOB_INDEX=2", "PROCESSES_IN_JOB"]),
    "sbatch": (SBATCH, ["SLURM_NTASKS=4", "srun", "--launcher none"]),
    "sbatch nodes": (without(SBATCH, "SLURM_NTASKS"), ["SLURM_JOB_NUM_NODES=2", "srun"]),
    "salloc": ({**INTERACTIVE, "SLURM_NTASKS": "8"}, ["SLURM_NTASKS=8", "srun"]),
    "sbatch with address": ({**SBATCH, "JAX_COORDINATOR_ADDRESS": "n1"}, ["srun"]),
}


@pytest.mark.parametrize(("env", "parts"), HALF_SET.values(), ids=HALF_SET)
def test_half_set_variables_are_named_with_what_is_missing(env, parts):
    message = failure(env)
    assert [part for part in parts if part not in message] == []


CONTRADICTIONS = {
    "plain names": ({**PLAIN, "JAX_PROCESS_COUNT": "8"}, "JAX_NUM_PROCESSES=4 and JAX_PROCESS_COUNT=8"),
    "plain ranks": ({**PLAIN, "JAX_PROCESS_INDEX": "1"}, "JAX_PROCESS_ID=2 and JAX_PROCESS_INDEX=1"),
    "slurm count": ({**SLURM, **PLAIN, "JAX_NUM_PROCESSES": "8"}, "JAX_NUM_PROCESSES=8 and SLURM_STEP_NUM_TASKS=4"),
    "slurm rank": ({**SLURM, **PLAIN, "JAX_PROCESS_ID": "1"}, "JAX_PROCESS_ID=1 and SLURM_PROCID=2"),
    "half plain": ({**SLURM, "JAX_NUM_PROCESSES": "8"}, "JAX_NUM_PROCESSES=8 and SLURM_STEP_NUM_TASKS=4"),
    "one of many": ({**SLURM, "JAX_NUM_PROCESSES": "1"}, "JAX_NUM_PROCESSES=1 and SLURM_STEP_NUM_TASKS=4"),
    "openmpi": ({**OPENMPI_4, **PLAIN}, "JAX_NUM_PROCESSES=4 and OMPI_COMM_WORLD_SIZE=8"),
    "nodes in slurm": ({**SLURM, **MAXTEXT, "NNODES": "2", "NODE_RANK": "1"}, "NNODES=2 and SLURM_STEP_NUM_TASKS=4"),
    "skypilot nodes": (
        {**SKYPILOT, **without(PLAIN, "JAX_PROCESS_ID")},
        "JAX_NUM_PROCESSES=4 and SKYPILOT_NUM_NODES=2",
    ),
    "two statements": ({**PLAIN, **AXLEARN}, "JAX_NUM_PROCESSES=4 and NUM_PROCESSES=16"),
    "two hosts": (
        {**without(PLAIN, "JAX_PROCESS_ID"), **MAXTEXT},
        "JAX_COORDINATOR_ADDRESS=10.0.0.1:9000 and JAX_COORDINATOR_IP=10.0.0.7",
    ),
    "two ports": (
        {**PLAIN, "JAX_COORDINATOR_PORT": "1"},
        "JAX_COORDINATOR_ADDRESS=10.0.0.1:9000 and JAX_COORDINATOR_PORT=1",
    ),
}


@pytest.mark.parametrize(("env", "both"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_contradictions_name_both_variables_and_values(env, both):
    assert f"{both} contradict each other. Unset" in failure(env)


@pytest.mark.parametrize(
    ("env", "start"),
    [
        ({**PLAIN, "JAX_NUM_PROCESSES": "four"}, "JAX_NUM_PROCESSES=four is not a whole number"),
        ({**PLAIN, "JAX_NUM_PROCESSES": "4.0"}, "JAX_NUM_PROCESSES=4.0 is not a whole number"),
        ({**PLAIN, "JAX_NUM_PROCESSES": "0"}, "JAX_NUM_PROCESSES=0: a job has at least 1 process"),
        ({**PLAIN, "JAX_PROCESS_ID": "4"}, "JAX_PROCESS_ID=4 is outside of 0 to 3"),
        ({**PLAIN, "JAX_PROCESS_ID": "-1"}, "JAX_PROCESS_ID=-1 is outside of 0 to 3"),
        ({**SLURM, "SLURM_PROCID": "x"}, "SLURM_PROCID=x is not a whole number"),
        ({**SLURM, "SLURM_STEP_NODELIST": "n[1-"}, "SLURM_STEP_NODELIST=n[1- is not a list of hosts"),
        ({**SLURM, "SLURM_STEP_NODELIST": "n[3-1]"}, "SLURM_STEP_NODELIST=n[3-1] has the range '3-1'"),
        ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "2x2"}, "SLURM_STEP_TASKS_PER_NODE=2x2 is not a list of tasks"),
        ({**PLAIN, "JAX_COORDINATOR_ADDRESS": "n1:"}, "JAX_COORDINATOR_ADDRESS=n1: has port=''"),
        ({**PLAIN, "JAX_COORDINATOR_ADDRESS": ":9000"}, "JAX_COORDINATOR_ADDRESS=:9000 is not an address"),
        (
            {**PLAIN, "JAX_COORDINATOR_ADDRESS": "http://n1:9000"},
            "JAX_COORDINATOR_ADDRESS=http://n1:9000 is not an address",
        ),
        ({**PLAIN, "JAX_COORDINATOR_ADDRESS": "[fd00::1"}, "JAX_COORDINATOR_ADDRESS=[fd00::1 is not an address"),
        ({**PLAIN, "JAX_COORDINATOR_ADDRESS": "n1:65535"}, "the coordinator's port=65535 (JAX_COORDINATOR_ADDRESS)"),
        ({**PLAIN, "JAX_COORDINATOR_ADDRESS": "n1:0"}, "the coordinator's port=0 (JAX_COORDINATOR_ADDRESS)"),
        ({**MAXTEXT, "JAX_COORDINATOR_PORT": "70000"}, "the coordinator's port=70000 (JAX_COORDINATOR_IP, port: JAX_"),
        ({**PLAIN, "JAX_LOCAL_DEVICE_IDS": "0,0"}, "JAX_LOCAL_DEVICE_IDS=0,0 is not a list of distinct positions"),
        ({"SHARDINIT_LAUNCHER": "pbs"}, "SHARDINIT_LAUNCHER=pbs is not a launcher. Use one of plain, maxtext, xpk"),
    ],
)
def test_values_that_cannot_be_are_named(env, start):
    message = failure(env)
    assert message.startswith(start)
    assert re.search(r"Set|Write|Use|Number|such as", message)


def test_process_0_elsewhere_than_the_coordinator_is_an_error():
    first = {**OPENMPI_5, "OMPI_COMM_WORLD_RANK": "0", "PMIX_HOSTNAME": "gpu-node20.cluster"}
    assert "process 0 runs on gpu-node20.cluster, but PMIX_NAMESPACE makes gpu-node18" in failure(first)
    assert detect({**first, "PMIX_HOSTNAME": "gpu-node18.cluster"}).process_id == 0
    assert "--coordinator gpu018:" in failure({**SLURM, "SLURM_PROCID": "0"})
    assert detect({**SLURM, "SLURM_PROCID": "0"}, coordinator="gpu018").coordinator == f"gpu018:{SLURM_PORT}"


def test_errors_are_value_errors_of_this_package():
    with pytest.raises(ShardInitError):
        detect({"JAX_PROCESS_ID": "0"})
    with pytest.raises(ValueError, match="half set"):
        detect({"JAX_PROCESS_ID": "0"})
