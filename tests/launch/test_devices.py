"""Which devices a process takes, and which proxies stand in its way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardinit.launch.detect import detect
from tests.launch.environments import GKE_TPU, OPENMPI_4, PLAIN, SKYPILOT, SLURM, failure, without

ON_NODE = {**SLURM, "SLURM_STEP_TASKS_PER_NODE": "2(x2)"}
ALL_GPUS = {**OPENMPI_4, "CUDA_VISIBLE_DEVICES": "4,5,6,7"}


@pytest.mark.parametrize(
    ("env", "flag", "ids", "source"),
    [
        (PLAIN, None, None, "default"),
        ({**PLAIN, "JAX_LOCAL_DEVICE_IDS": "0, 3"}, None, (0, 3), "JAX_LOCAL_DEVICE_IDS"),
        ({**PLAIN, "JAX_LOCAL_DEVICE_IDS": "0,3"}, "auto", (0, 3), "JAX_LOCAL_DEVICE_IDS"),
        ({**PLAIN, "JAX_LOCAL_DEVICE_IDS": "0,3"}, "all", None, "--local-devices"),
        ({**PLAIN, "JAX_LOCAL_DEVICE_IDS": "0,3"}, "1,2", (1, 2), "--local-devices"),
        ({"JAX_LOCAL_DEVICE_IDS": "1"}, None, (1,), "JAX_LOCAL_DEVICE_IDS"),
        (ALL_GPUS, None, (1,), "one GPU per process: CUDA_VISIBLE_DEVICES shows 4, this is local rank 1"),
        ({**ALL_GPUS, "CUDA_VISIBLE_DEVICES": "GPU-8f,GPU-2b,MIG-1,MIG-2"}, None, (1,), "one GPU per process"),
        ({**ALL_GPUS, "CUDA_VISIBLE_DEVICES": "0,1,2,3,-1,4"}, None, (1,), "CUDA_VISIBLE_DEVICES shows 4"),
        ({**ALL_GPUS, "CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}, None, (2, 3), "2 GPUs per process"),
        ({**ALL_GPUS, "CUDA_VISIBLE_DEVICES": "3"}, None, None, "CUDA_VISIBLE_DEVICES shows 1"),
        ({**ALL_GPUS, "CUDA_VISIBLE_DEVICES": ""}, None, None, "CUDA_VISIBLE_DEVICES shows 0"),
        ({**ALL_GPUS, "CUDA_VISIBLE_DEVICES": "-1"}, None, None, "CUDA_VISIBLE_DEVICES shows 0"),
        ({**ALL_GPUS, "CUDA_VISIBLE_DEVICES": "0,1,2", "JAX_PLATFORMS": "cpu"}, None, None, "default"),
        ({**ALL_GPUS, "JAX_PLATFORMS": "cuda,cpu"}, None, (1,), "one GPU per process"),
        ({**ON_NODE, "SLURM_GPUS_ON_NODE": "2"}, None, (0,), "SLURM_GPUS_ON_NODE shows 2"),
        ({**ON_NODE, "SLURM_GPUS_ON_NODE": "4", "SLURM_LOCALID": "1"}, None, (2, 3), "SLURM_GPUS_ON_NODE shows 4"),
        ({**ON_NODE, "SLURM_JOB_GPUS": "0,1,4-5"}, None, (0, 1), "SLURM_JOB_GPUS shows 4"),
        ({**ON_NODE, "SLURM_STEP_GPUS": "0,1"}, None, (0,), "SLURM_STEP_GPUS shows 2"),
        ({**ON_NODE, "SLURM_GPUS_ON_NODE": "3", "SLURM_STEP_TASKS_PER_NODE": "3,1"}, None, None, "default"),
        (
            {**ON_NODE, "CUDA_VISIBLE_DEVICES": "0,1", "SLURM_GPUS_ON_NODE": "4"},
            None,
            None,
            "narrowed to this task's 2",
        ),
        ({**ON_NODE, "CUDA_VISIBLE_DEVICES": "0,1", "SLURM_GPUS_PER_TASK": "a100:2"}, None, None, "narrowed to this"),
        ({**ON_NODE, "CUDA_VISIBLE_DEVICES": "0,1", "SLURM_GPUS_ON_NODE": "2"}, None, (0,), "CUDA_VISIBLE_DEVICES"),
        ({**GKE_TPU, "CUDA_VISIBLE_DEVICES": "0,1"}, None, None, "default"),
        ({**SKYPILOT, "CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}, None, None, "default"),
    ],
)
def test_local_devices(env, flag, ids, source):
    spec = detect(env, local_devices=flag)
    assert spec.local_device_ids == ids
    assert source in spec.sources[-1][2]


@pytest.mark.parametrize("visible", ["0,1,2", "0,1,2,3,4,5", "0,1"])
def test_gpus_that_cannot_be_shared_are_an_error(visible):
    count = len(visible.split(","))
    message = failure({**OPENMPI_4, "CUDA_VISIBLE_DEVICES": visible})
    assert f"processes_on_node=4, GPUs={count} (CUDA_VISIBLE_DEVICES)" in message
    assert detect({**OPENMPI_4, "CUDA_VISIBLE_DEVICES": visible}, local_devices="all").local_device_ids is None


@pytest.mark.parametrize("text", ["", "x", "0,-1", "1,1", "0;1"])
def test_local_devices_that_cannot_be_read(text):
    assert f"--local-devices={text} is not a list" in failure({}, local_devices=text)


def test_processes_that_share_unknown_gpus_are_warned():
    [warning] = detect(without(OPENMPI_4, "PMIX_NAMESPACE")).warnings
    assert "4 processes share this node" in warning
    assert detect({**OPENMPI_4, "JAX_PLATFORMS": "cpu"}).warnings == ()
    assert detect(SLURM).warnings == ()
    assert len(detect({**SLURM, "JAX_PLATFORMS": "cuda"}).warnings) == 1


@given(st.integers(1, 8), st.integers(1, 4), st.integers(1, 4))
def test_shares_cover_the_gpus_once(processes, share, nodes):
    gpus, size = processes * share, processes * nodes
    env = {**OPENMPI_4, "CUDA_VISIBLE_DEVICES": ",".join(map(str, range(gpus)))}
    counts = {"OMPI_COMM_WORLD_SIZE": str(size), "OMPI_COMM_WORLD_LOCAL_SIZE": str(processes)}
    ids = [
        detect({**env, **counts, "OMPI_COMM_WORLD_RANK": str(r), "OMPI_COMM_WORLD_LOCAL_RANK": str(r)}).local_device_ids
        for r in range(processes)
    ]
    if processes == 1:
        assert ids == [None]
    else:
        assert [i for each in ids for i in each] == list(range(gpus))


@pytest.mark.parametrize(
    ("proxies", "fix"),
    [
        ({"http_proxy": "http://proxy:3128"}, "export no_proxy=10.0.0.1`"),
        ({"https_proxy": "http://proxy:3128", "no_proxy": "localhost,.corp"}, 'export no_proxy="$no_proxy,10.0.0.1"`'),
        (
            {"grpc_proxy": "http://p", "no_proxy": "10.0.0.1", "no_grpc_proxy": "x"},
            'no_grpc_proxy="$no_grpc_proxy,10.0.0.1"',
        ),
        ({"http_proxy": "http://p", "no_proxy": "10.0.1.0/24"}, "export no_proxy="),
        ({"http_proxy": "http://p", "no_proxy": "*"}, "export no_proxy="),
        ({"http_proxy": "http://p", "NO_PROXY": "10.0.0.1"}, "export no_proxy=10.0.0.1`"),
        ({"http_proxy": "http://p", "no_proxy": "10.0.0.1"}, None),
        ({"http_proxy": "http://p", "no_proxy": "localhost, 0.0.1"}, None),
        ({"http_proxy": "http://p", "no_proxy": "10.0.0.0/8"}, None),
        ({"HTTP_PROXY": "http://p"}, None),
        ({"grpc_proxy": "", "http_proxy": "http://p"}, None),
        ({"http_proxy": "socks5://p"}, None),
        ({}, None),
    ],
)
def test_a_proxy_that_would_swallow_the_coordinator(proxies, fix):
    warnings = detect({**PLAIN, **proxies}).warnings
    assert len(warnings) == (fix is not None)
    assert all(fix in warning for warning in warnings)


def test_a_proxy_matters_to_names_and_to_many_processes_only():
    proxy = {"http_proxy": "http://user:secret@proxy"}
    assert detect(proxy).warnings == ()
    named = {**PLAIN, "JAX_COORDINATOR_ADDRESS": "N1.Cluster:1", **proxy}
    assert detect({**named, "no_proxy": ".cluster"}).warnings == ()
    assert "secret" not in detect(named).warnings[0]
