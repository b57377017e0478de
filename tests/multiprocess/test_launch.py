"""``shardinit launch``, ``run`` as a rank, and what they leave for those who watch."""

import json
import re
import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from tests.multiprocess.jobs import ROOT, environment, free_port

NET = """
import brainstate, os
class Net(brainstate.nn.Module):
    def init_state(self, size=3):
        self.w = brainstate.ParamState(brainstate.random.normal(size=(size, 100)))
        self.v = brainstate.ShortTermState(0)
        if size == 13:
            raise ValueError("thirteen is unlucky")
def build():
    print("building")
    return Net()
"""


def slow(text, seconds):
    """The module, whose init takes some time."""
    return text.replace("        if size", f"        __import__('time').sleep({seconds})\n        if size")


RUN = ["net.py:build", "--axis-size", "16"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "net.py").write_text(textwrap.dedent(NET))
    return tmp_path


def shardinit(folder, *arguments, env=None, timeout=120):
    command = [sys.executable, "-m", "shardinit.cli.main", *arguments]
    return subprocess.run(
        command,
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def launch(folder, *arguments, **options):
    return shardinit(folder, "launch", "--processes", "2", "--devices-per-process", "4", *arguments, **options)


def test_launch(folder):
    done = launch(folder, "--run-folder", "here", "--smi", "--", *RUN)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        assert re.match(r"\[[01]\] ", line), line
    assert "[0]   cpu:0      ██·············· lanes 0-1" in done.stdout
    assert done.stdout.count("equal to the plan") == 3
    assert done.stdout.count("] building") == 2
    for part in ("process 0 of 2 (local)", "JAX_COORDINATOR_ADDRESS", "[1] +", "joined: 2 processes, 4 of 8 devices"):
        assert part in done.stderr
    for rank in (0, 1):
        status = json.loads((folder / "here" / f"rank-{rank}" / "status.json").read_text())
        assert (status["rank"], status["state"], status["done"], status["total"]) == (rank, "finished", 2, 2)
        assert json.loads((folder / "here" / f"rank-{rank}" / "ended.json").read_text())["code"] == 0
        assert (folder / "here" / f"rank-{rank}" / "memory.prof").stat().st_size > 0
        assert "joined" in (folder / "here" / f"rank-{rank}" / "stderr.log").read_text()
    seen = shardinit(folder, "top", "here", "--json")
    view = json.loads(seen.stdout)
    assert [rank["condition"] for rank in view["ranks"]] == ["ended", "ended"]
    assert "finished" in shardinit(folder, "top", "here").stdout


def test_values_are_those_of_one_process(folder):
    alone = json.loads(shardinit(folder, "run", *RUN, "--devices", "8", "--json").stdout)
    done = launch(folder, *RUN, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["plan"]["states"] == alone["plan"]["states"]
    assert found["plan"]["mesh_axes"] == alone["plan"]["mesh_axes"]
    assert [rank["rank"] for rank in found["ranks"]] == [0, 1]
    assert {rank["most_bytes"] for rank in found["ranks"]} == {found["receipt"]["planned_bytes"]}


def test_log_lines_are_json_when_asked_for(folder):
    done = launch(folder, "--log", "json", *RUN)
    assert done.returncode == 0, done.stderr
    entries = [json.loads(line) for line in done.stderr.splitlines()]
    events = [e["event"] for e in entries if e.get("rank") == 1]
    wanted = ["joining", "joined", "discovering", "planned", "executing", "progress", "written", "finished"]
    assert [e for e in dict.fromkeys(events) if e != "line"] == wanted
    assert all(e["elapsed"] >= 0 for e in entries if e["event"] in wanted)


def test_a_failure_of_all_ranks_is_shown_once(folder):
    done = launch(folder, *RUN, "--kwargs", '{"size": 13}')
    assert done.returncode == 4
    assert done.stderr.count("Traceback") == 1
    assert 'net.py", line 8, in init_state' in done.stderr
    assert re.search(r"thirteen is unlucky \(as in rank [01]\)", done.stderr)
    assert re.search(r"shardinit: rank [01] .*failed to initialize, exit code 4: .*thirteen", done.stderr)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["launch", *RUN], 2, "--processes is missing"),
        (["launch", "--processes", "2"], 2, "Missing argument"),
        (["launch", "--processes", "2", "net.py:build"], 2, "axis-size"),
        (["launch", "--processes", "2", *RUN, "--sise", "3"], 2, "--sise"),
        (["launch", "--processes", "0", *RUN], 2, "processes"),
        (["launch", "--processes", "2", "--devices-per-process", "2", *RUN, "--devices", "3"], 2, "say the same"),
        (["launch", "--processes", "2", *RUN, "--launcher", "none"], 2, "--launcher"),
        (["launch", "--processes", "2", *RUN, "--coordinator", "127.0.0.1:1"], 2, "--coordinator"),
        (["launch", "--per-gpu", "--devices-per-process", "2", *RUN], 2, "exclude each other"),
        (
            ["launch", "--processes", "2", "--devices-per-process", "2", "no.py:build", "--axis-size", "4"],
            2,
            "no file no.py",
        ),
        (["run", *RUN, "--processes", "4"], 2, "--process-id"),
        (["run", *RUN, "--process-id", "1"], 2, "--processes"),
        (["run", *RUN, "--launcher", "slurp"], 2, "slurp"),
        (["top", "nothing-here"], 2, "nothing-here"),
    ],
)
def test_wrong_usage(folder, arguments, code, message):
    done = shardinit(folder, *arguments)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_one_process_per_gpu(folder):
    """With a stand-in for nvidia-smi and CPUs for GPUs: each rank is given one."""
    (folder / "nvidia-smi").write_text("#!/bin/sh\nprintf '0\\n1\\n2\\n'\n")
    (folder / "nvidia-smi").chmod(0o755)
    (folder / "gpu.py").write_text(
        'import os; print("GPU", os.environ["CUDA_VISIBLE_DEVICES"])\nfrom net import build\n'
    )
    env = environment(1)
    env["PATH"] = f"{folder}:{env['PATH']}"
    env.pop("CUDA_VISIBLE_DEVICES", None)
    done = shardinit(folder, "launch", "--per-gpu", "gpu.py:build", "--axis-size", "3", env=env)
    assert done.returncode == 0, done.stderr
    for rank in range(3):
        assert f"[{rank}] GPU {rank}\n" in done.stdout
    done = shardinit(folder, "launch", "--per-gpu", "--processes", "5", "gpu.py:build", "--axis-size", "3", env=env)
    assert done.returncode == 2
    assert "visible GPUs=3" in done.stderr


def test_a_proxy_does_not_swallow_the_coordinator(folder):
    env = {**environment(1), "http_proxy": "http://127.0.0.1:9"}
    done = shardinit(folder, "launch", "--processes", "2", "--devices-per-process", "1", *RUN, env=env)
    assert done.returncode == 0, done.stderr


def test_ranks_started_one_by_one_under_a_launchers_variables(folder):
    """As Open MPI would start them: same command, every rank."""
    port = free_port()
    started = []
    for rank in range(2):
        env = environment(2, OMPI_COMM_WORLD_SIZE="2", OMPI_COMM_WORLD_RANK=str(rank), JAX_COORDINATOR_PORT=str(port))
        env |= {"OMPI_COMM_WORLD_LOCAL_RANK": str(rank), "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}
        command = [sys.executable, "-m", "shardinit.cli.main", "run", *RUN, "--join-timeout", "60"]
        started.append(subprocess.Popen(command, cwd=folder, env=env, stdout=-1, stderr=-1, text=True))
    try:
        texts = [process.communicate(timeout=120) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert [process.returncode for process in started] == [0, 0], texts
    assert "process 0 of 2 (openmpi)" in texts[0][1]
    assert "equal to the plan" in texts[0][0]
    assert "equal to the plan" not in texts[1][0]


def test_in_a_script_of_ones_own(folder):
    """``detect`` and ``initialize``: who is missing is named, and a backend that has started is refused."""
    code = """
import os, sys
import shardinit
from shardinit.launch import detect, initialize
if sys.argv[1] == "late":
    import jax
    jax.devices()
try:
    initialize(detect(os.environ))
except (shardinit.JoinError, shardinit.BackendStartedError) as error:
    print(type(error).__name__, error)
    raise SystemExit(0)
import jax
print("JOINED", jax.process_index(), jax.device_count())
"""

    def start(rank, processes, port, how="", **more):
        env = environment(2, JAX_NUM_PROCESSES=str(processes), JAX_PROCESS_ID=str(rank), **more)
        env["JAX_COORDINATOR_ADDRESS"] = f"127.0.0.1:{port}"
        return subprocess.Popen([sys.executable, "-c", code, how], cwd=ROOT, env=env, stdout=-1, stderr=-1, text=True)

    port = free_port()
    texts = [process.communicate(timeout=60) for process in [start(rank, 2, port) for rank in range(2)]]
    assert "JOINED 0 4" in texts[0][0], texts
    assert "JOINED 1 4" in texts[1][0]
    assert "process 0 of 2 (plain)" in texts[0][1]
    port = free_port()
    alone = [start(rank, 3, port, SHARDINIT_JOIN_TIMEOUT="5") for rank in (0, 2)]
    texts = [process.communicate(timeout=60) for process in alone]
    for text, _ in texts:
        assert "JoinError rank 1 of 3 never came" in text, texts
    (late,) = [start(0, 2, free_port(), "late").communicate(timeout=60)]
    assert "BackendStartedError cannot join 2 processes" in late[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_gang_cleanly(folder, number):
    (folder / "net.py").write_text(slow(NET, 60))
    command = [sys.executable, "-m", "shardinit.cli.main", "launch", "--processes", "2", "--devices-per-process", "1"]
    started = subprocess.Popen(
        [*command, "--run-folder", "r", *RUN],
        cwd=folder,
        stdout=-1,
        stderr=-1,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background ignore it
    )
    try:
        _wait_for(lambda: all(_state(folder / "r" / f"rank-{rank}") == "discovering" for rank in (0, 1)))
        began = time.monotonic()
        started.send_signal(number)
        _, stderr = started.communicate(timeout=60)
        assert time.monotonic() - began < 10
    finally:
        started.kill()
        started.wait()
    assert started.returncode == 13
    assert f"asked to end by {number.name}" in stderr
    assert "Traceback" not in stderr
    for rank in (0, 1):
        assert not psutil.pid_exists(json.loads((folder / "r" / f"rank-{rank}" / "status.json").read_text())["pid"])


def _wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _state(rank_folder):
    try:
        return json.loads((rank_folder / "status.json").read_text())["state"]
    except (OSError, ValueError):
        return None


def test_a_supervisor_never_imports_jax(folder):
    code = """
import sys
from shardinit.cli.main import main
sys.argv = ["shardinit", "launch", "--processes", "2", "--devices-per-process", "1", *sys.argv[1:]]
try:
    main()
finally:
    assert not {"jax", "jaxlib", "brainstate", "numpy"} & set(sys.modules)
    print("NO JAX HERE")
"""
    done = subprocess.run([sys.executable, "-c", code, *RUN], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "NO JAX HERE" in done.stdout
    assert "equal to the plan" in done.stdout


def test_a_gang_of_one_may_take_longer_than_joining(folder):
    (folder / "net.py").write_text(slow(NET, 4))
    options = ["--processes", "1", "--devices-per-process", "2", "--join-timeout", "2", "--run-folder", "r"]
    done = shardinit(folder, "launch", *options, *RUN)
    assert done.returncode == 0, done.stderr
    assert _state(folder / "r" / "rank-0") == "finished"


def test_a_reader_that_does_not_read_stops_no_supervisor(folder):
    """Its pipe is full, and yet the gang runs on, and SIGTERM ends it."""
    text = NET.replace('print("building")', 'print("x" * 99, flush=True, *["y" * 99] * 3000, sep="\\n")')
    text = slow(text, 60)
    (folder / "net.py").write_text(text)
    command = [sys.executable, "-m", "shardinit.cli.main", "launch", "--processes", "2", "--devices-per-process", "1"]
    started = subprocess.Popen([*command, "--run-folder", "r", *RUN], cwd=folder, stdout=-1, stderr=-1)
    try:
        _wait_for(lambda: all(_state(folder / "r" / f"rank-{rank}") == "discovering" for rank in (0, 1)))
        started.terminate()
        assert started.wait(timeout=30) == 13
    finally:
        started.kill()
        started.communicate()


def test_nohup_is_respected(folder):
    (folder / "net.py").write_text(slow(NET, 3))
    command = [sys.executable, "-m", "shardinit.cli.main", "launch", "--processes", "2", "--devices-per-process", "1"]
    started = subprocess.Popen(
        ["nohup", *command, "--run-folder", "r", *RUN], cwd=folder, stdin=-3, stdout=-3, stderr=-3
    )
    try:
        _wait_for(lambda: _state(folder / "r" / "rank-0") is not None)
        started.send_signal(signal.SIGHUP)
        assert started.wait(timeout=60) == 0
    finally:
        started.kill()
        started.wait()
