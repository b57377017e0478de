"""Environments of launchers, as real as they could be had, and the job that each one means."""

import zlib

import pytest

from shardinit.errors import LaunchError
from shardinit.launch.detect import DEFAULT_PORT, detect

PLAIN = {"JAX_COORDINATOR_ADDRESS": "10.0.0.1:9000", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "2"}

# srun -N2 -n4 in a batch job, SLURM 22.05; task 2 is the first of the second node.
SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_JOBID": "4711",
    "SLURM_JOB_NODELIST": "gpu[017-018]",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_NTASKS": "4",
    "SLURM_NPROCS": "4",
    "SLURM_TASKS_PER_NODE": "2(x2)",
    "SLURM_STEP_ID": "0",
    "SLURM_STEPID": "0",
    "SLURM_STEP_NODELIST": "gpu[017-018]",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_NODEID": "1",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
    "SLURMD_NODENAME": "gpu018",
    "SLURM_LAUNCH_NODE_IPADDR": "10.1.0.17",
}
SBATCH = {
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_NODELIST": "gpu[017-018]",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_NTASKS": "4",
    "SLURM_TASKS_PER_NODE": "2(x2)",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
    "SLURM_GTIDS": "0",
    "SLURMD_NODENAME": "gpu017",
}
SLURM_PORT = 61440 + 2 * (4711 % 2047)


def port_of(job):
    return 61440 + 2 * (zlib.crc32(job.encode()) % 2047)


# The shell that salloc or `srun --pty` opens: a step that no task of a job runs in.
INTERACTIVE = {
    "SLURM_JOB_ID": "1720714",
    "SLURM_JOB_NODELIST": "GPU71E4",
    "SLURM_JOB_NUM_NODES": "1",
    "SLURM_TASKS_PER_NODE": "8",
    "SLURM_STEP_ID": "4294967290",
    "SLURM_STEP_NODELIST": "GPU71E4",
    "SLURM_STEP_NUM_NODES": "1",
    "SLURM_STEP_NUM_TASKS": "1",
    "SLURM_STEP_TASKS_PER_NODE": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}

OPENMPI_4 = {
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_RANK": "5",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_NODE_RANK": "1",
    "OMPI_UNIVERSE_SIZE": "8",
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1,10.108.0.1:34911",
    "PMIX_NAMESPACE": "1531576321",
}
PRTERUN = f"gpu-node18:{port_of('prterun-gpu-node18-12345@1')}"
OPENMPI_5 = {
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_RANK": "5",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "PRTE_LAUNCHED": "1",
    "PMIX_NAMESPACE": "prterun-gpu-node18-12345@1",
    "PMIX_RANK": "5",
    "PMIX_HOSTNAME": "gpu-node19",
    "PMIX_SERVER_URI41": "prterun-gpu-node18-12345@0.1;tcp4://10.20.30.41:45678",
}

XPK_GPU = {
    "JOBSET_NAME": "w1",
    "REPLICATED_JOB_NAME": "slice-job",
    "NNODES": "2",
    "NODE_RANK": "1",
    "GPUS_PER_NODE": "8",
    "JAX_COORDINATOR_PORT": "6002",
    "JAX_COORDINATOR_ADDRESS": "w1-slice-job-0-0.w1",
    "JOB_COMPLETION_INDEX": "1",
}
XPK_CPU = {
    "JOBSET_NAME": "w1",
    "REPLICATED_JOB_NAME": "slice-job",
    "JOB_INDEX": "1",
    "JOB_COMPLETION_INDEX": "2",
    "PROCESSES_IN_JOB": "4",
    "JAX_PROCESS_COUNT": "8",
    "JAX_COORDINATOR_ADDRESS": "w1-slice-job-0-0.w1",
}
MAXTEXT = {"JAX_COORDINATOR_IP": "10.0.0.7", "JAX_COORDINATOR_PORT": "1234", "NNODES": "4", "NODE_RANK": "3"}
AXLEARN = {"DISTRIBUTED_COORDINATOR": "exp-job-0-0.exp:8080", "NUM_PROCESSES": "16", "PROCESS_ID": "15"}
KUBEFLOW = {
    "COORDINATOR_ADDRESS": "job-worker-0",
    "COORDINATOR_PORT": "6666",
    "NUM_PROCESSES": "3",
    "PROCESS_ID": "1",
}
SKYPILOT = {
    "SKYPILOT_NUM_NODES": "2",
    "SKYPILOT_NODE_RANK": "1",
    "SKYPILOT_NODE_IPS": "10.128.0.11\n10.128.0.12\n",
    "SKYPILOT_NUM_GPUS_PER_NODE": "8",
    "SKYPILOT_TASK_ID": "sky-2024",
}
INDEXED_JOB = {
    "JOB_COMPLETION_INDEX": "3",
    "JAX_COORDINATOR_ADDRESS": "train-0.train:9876",
    "JAX_NUM_PROCESSES": "4",
    "HOSTNAME": "train-3",
    "KUBERNETES_SERVICE_HOST": "10.96.0.1",
}
JOBSET = {
    "JOB_COMPLETION_INDEX": "1",
    "JOB_INDEX": "2",
    "PROCESSES_IN_JOB": "2",
    "JAX_COORDINATOR_ADDRESS": "train-workers-0-0.train",
    "JAX_NUM_PROCESSES": "6",
}
GKE_TPU = {
    "TPU_WORKER_ID": "1",
    "TPU_WORKER_HOSTNAMES": "tpu-job-0.svc,tpu-job-1.svc,tpu-job-2.svc,tpu-job-3.svc",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_TOPOLOGY": "4x4",
    "TPU_SKIP_MDS_QUERY": "true",
    "JOB_COMPLETION_INDEX": "1",
}
MULTISLICE = {
    **GKE_TPU,
    "MEGASCALE_COORDINATOR_ADDRESS": "ms-slice-0-0.ms:8080",
    "MEGASCALE_NUM_SLICES": "2",
    "MEGASCALE_SLICE_ID": "1",
}

JOBS = {
    "plain": (PLAIN, "10.0.0.1:9000", 4, 2, "plain"),
    "slurm": (SLURM, f"gpu017:{SLURM_PORT}", 4, 2, "slurm"),
    "openmpi 4": ({**OPENMPI_4, "JAX_PLATFORMS": "cpu"}, f"10.96.0.1:{port_of('1531576320.0')}", 8, 5, "openmpi"),
    "openmpi 5": (
        {**OPENMPI_5, "JAX_PLATFORMS": "cpu"},
        PRTERUN,
        8,
        5,
        "openmpi",
    ),
    "xpk gpu": (XPK_GPU, "w1-slice-job-0-0.w1:6002", 2, 1, "xpk"),
    "xpk cpu": (XPK_CPU, f"w1-slice-job-0-0.w1:{DEFAULT_PORT}", 8, 6, "xpk"),
    "maxtext": (MAXTEXT, "10.0.0.7:1234", 4, 3, "maxtext"),
    "axlearn": (AXLEARN, "exp-job-0-0.exp:8080", 16, 15, "axlearn"),
    "kubeflow": (KUBEFLOW, "job-worker-0:6666", 3, 1, "generic"),
    "skypilot": (SKYPILOT, f"10.128.0.11:{DEFAULT_PORT}", 2, 1, "skypilot"),
    "indexed job": (INDEXED_JOB, "train-0.train:9876", 4, 3, "kubernetes"),
    "jobset": (JOBSET, f"train-workers-0-0.train:{DEFAULT_PORT}", 6, 5, "kubernetes"),
    "gke tpu": (GKE_TPU, f"tpu-job-0.svc:{DEFAULT_PORT}", 4, 1, "tpu"),
    "multislice": (MULTISLICE, f"ms-slice-0-0.ms:{DEFAULT_PORT}", 8, 5, "tpu"),
}


def failure(env, **flags):
    with pytest.raises(LaunchError) as caught:
        detect(env, **flags)
    return str(caught.value)


def without(env, *names):
    return {name: value for name, value in env.items() if name not in names}
