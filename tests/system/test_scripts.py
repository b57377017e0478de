"""The scripts without a cluster: what they would run, and what can run on any machine."""

import os
import sys
import time

import pytest

from shardinit.launch.detect import detect
from tests.system.processes import attempt, environment, run
from tests.system.test_files import options_of_run

METADATA = """\
#!/bin/sh
case "$*" in
*/agent-worker-number) echo 2 ;;
*/worker-network-endpoints) echo unknown:unknown:10.0.0.7,unknown:unknown:10.0.0.8,unknown:unknown:10.0.0.9 ;;
*) exit 22 ;;
esac
"""


def dry(script, *arguments, **variables):
    """The commands that a script would run, one a line and quoted for bash, as lists of words."""
    text = run("bash", f"scripts/{script}", *arguments, env=environment(DRY_RUN="1", **variables))
    lines = [f"printf '%s\\0' {line}" for line in text.splitlines()]
    return [run("bash", "-c", line, env=environment()).split("\0")[:-1] for line in lines]


def test_local_prints_what_it_would_run():
    (command,) = dry("local.sh")
    expected = "shardinit launch --processes 4 --devices-per-process 2 examples/ei_network.py:build --axis-size 64"
    assert command == expected.split()
    (command,) = dry("local.sh", "a.py:b", "--axis-size", "8", "--kwargs", '{"a": 1}', DEVICES_PER_PROCESS="0")
    assert command == ["shardinit", "launch", "--per-gpu", "a.py:b", "--axis-size", "8", "--kwargs", '{"a": 1}']


def test_slurm_prints_what_it_would_run():
    (command,) = dry("slurm.sbatch")
    assert command[:4] == ["srun", "--kill-on-bad-exit=1", "shardinit", "run"]
    assert options_of_run(command[4:])["grace"] == 20


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (
            {"PYXIS_IMAGE": "shardinit+cpu.sqsh"},
            ["srun", "--kill-on-bad-exit=1", "--container-image=shardinit+cpu.sqsh"],
        ),
        ({"APPTAINER_IMAGE": "cpu.sif"}, ["srun", "--kill-on-bad-exit=1", "apptainer", "exec", "--nv", "--bind"]),
    ],
)
def test_slurm_in_a_container(variables, expected):
    (command,) = dry("slurm.sbatch", "a.py:b", "--axis-size", "8", **variables)
    assert command[: len(expected)] == expected
    assert command[-7:] == ["shardinit", "run", "a.py:b", "--axis-size", "8", "--grace", "20"]


def test_tpu_pod_prints_what_it_would_run():
    create, archive, copy, install = dry("tpu_pod.sh", "create", ZONE="here", CREATE_OPTIONS="--spot --reserved")
    assert create[:5] == ["gcloud", "compute", "tpus", "queued-resources", "create"]
    assert create[-2:] == ["--spot", "--reserved"]
    assert archive[:2] == ["git", "archive"]
    for command in (copy, install):
        assert {"--worker=all", "here"} <= set(command)
    (stop,) = dry("tpu_pod.sh", "stop")
    assert "kill -TERM" in stop[-1]
    assert attempt("bash", "scripts/tpu_pod.sh", env=environment()).returncode == 2


def test_a_host_of_a_tpu_pod_learns_which_one_it_is(tmp_path):
    (command,) = dry("tpu_pod.sh", "run", "a.py:b", "--axis-size", "8", LIBTPU_INIT_ARGS="--xla_a=1 --xla_b=2")
    assert "--worker=all" in command
    place = tmp_path / "shardinit/.venv/bin"
    place.mkdir(parents=True)
    for path, text in ((place / "shardinit", '#!/bin/sh\necho "$@"\nenv\n'), (tmp_path / "curl", METADATA)):
        path.write_text(text)
        path.chmod(0o755)
    env = environment() | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    arguments, *lines = run("bash", "-c", command[-1], env=env, cwd=tmp_path).splitlines()
    seen = dict(line.split("=", 1) for line in lines if "=" in line)
    assert arguments == "run a.py:b --axis-size 8"
    assert seen["LIBTPU_INIT_ARGS"] == "--xla_a=1 --xla_b=2"
    assert seen["JAX_COMPILATION_CACHE_DIR"] == "/tmp/jax-cache"
    spec = detect(seen)
    assert (spec.processes, spec.process_id, spec.coordinator_address.host) == (3, 2, "10.0.0.7")


def test_local_runs_four_processes(tmp_path):
    env = environment(RUN_FOLDER=tmp_path / "run", PYTHON=sys.executable)
    text = run("bash", "scripts/local.sh", "examples/mlp96.py:build", "--axis-size", "16", env=env, seconds=240)
    assert text.count("MiB   equal to the plan") == 4, text
    assert (tmp_path / "run/rank-3/status.json").exists()


def test_healthy_is_a_rank_of_this_host_that_wrote_lately(tmp_path):
    def is_healthy():
        env = environment(RUN_FOLDER=tmp_path)
        return attempt("sh", "docker/healthy", env=env).returncode == 0

    host = os.uname().nodename
    status = tmp_path / "rank-1/status.json"
    assert not is_healthy()
    status.parent.mkdir()
    status.write_text(f'{{"rank": 1, "host": "{host}", "state": "executing"}}')
    assert is_healthy()
    os.utime(status, (time.time() - 60, time.time() - 60))
    assert not is_healthy()
    status.write_text('{"rank": 1, "host": "another", "state": "executing"}')
    assert not is_healthy()
