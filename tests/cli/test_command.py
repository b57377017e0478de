"""The command line as a user sees it: output, exit codes, messages."""

import json
import os
import pty
import subprocess
import sys
import textwrap

import pytest

GOOD = """
import brainstate
class Net(brainstate.nn.Module):
    def init_state(self, size=3):
        self.w = brainstate.ParamState(brainstate.random.normal(size=(size, 4)))
        self.v = brainstate.ShortTermState(0)
        if size == 13:
            raise ValueError("thirteen is unlucky")
def build():
    return Net()
def nothing():
    return None
def broken():
    return undefined_name
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "net.py").write_text(textwrap.dedent(GOOD))
    (tmp_path / "syntax.py").write_text("def build(:\n")
    return tmp_path


def shardinit(folder, *arguments, timeout=180):
    command = [sys.executable, "-m", "shardinit.cli.main", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout, check=False)


def test_run(folder):
    done = shardinit(folder, "run", "net.py:build", "--axis-size", "16", "--devices", "8", "--kwargs", '{"size": 5}')
    assert done.returncode == 0, done.stderr
    for part in ("ParamState", "float32[5,4]", "shard_map", "P('lanes')", "160 B", "equal to the plan", "lanes 14-15"):
        assert part in done.stdout
    assert done.stderr == ""


def test_run_json(folder):
    done = shardinit(folder, "run", "net.py:build", "--axis-size", "8", "--devices", "4", "--json")
    found = json.loads(done.stdout)
    assert found["receipt"]["states"] == 2
    assert set(found["receipt"]["measured_bytes"].values()) == {found["receipt"]["planned_bytes"]}
    assert len(found["receipt"]["measured_bytes"]) == 4


def test_plan(folder):
    done = shardinit(folder, "plan", "net.py:build", "--axis-size", "12", "--devices", "8")
    assert done.returncode == 0, done.stderr
    assert "12 lanes on 6 of 8 devices" in done.stdout
    found = json.loads(shardinit(folder, "plan", "net:build", "--axis-size", "12", "--devices", "8", "--json").stdout)
    assert found["mesh_axes"] == [["lanes", 6]]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "net.py:build", "--axis-size", "0"], 2, "axis-size"),
        (["run", "net.py:build"], 2, "axis-size"),
        (["run", "net.py", "--axis-size", "8"], 2, "has no factory"),
        (["run", "missing.py:build", "--axis-size", "8"], 2, "no file missing.py"),
        (["run", "missing:build", "--axis-size", "8"], 2, "no module 'missing'"),
        (["run", "net.py:bild", "--axis-size", "8"], 2, "It defines: Net, broken, build, nothing"),
        (["run", "net.py:nothing", "--axis-size", "8"], 2, "returned a NoneType without init_all_states"),
        (["run", "net.py:broken", "--axis-size", "8"], 2, "undefined_name"),
        (["run", "syntax.py:build", "--axis-size", "8"], 2, "SyntaxError"),
        (["run", "net.py:build", "--axis-size", "8", "--kwargs", "{size: 3}"], 2, "--kwargs is not JSON"),
        (["run", "net.py:build", "--axis-size", "8", "--kwargs", "[3]"], 2, "Write an object"),
        (
            ["run", "net.py:build", "--axis-size", "12", "--devices", "8", "--strategy", "pmap"],
            3,
            "axis_size=8 or axis_size=16",
        ),
        (["run", "net.py:build", "--axis-size", "8", "--kwargs", '{"size": 13}'], 4, "thirteen is unlucky"),
        (["run", "net.py:build", "--axis-size", "8", "--kwargs", '{"sise": 13}'], 4, "sise"),
        (["plan", "net.py:build", "--axis-size", "8", "--kwargs", '{"size": 13}'], 4, "thirteen is unlucky"),
    ],
)
def test_failures(folder, arguments, code, message):
    done = shardinit(folder, *arguments)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    for internal in ("shardinit/discover", "shardinit/cli", "site-packages/jax", "site-packages/brainstate"):
        assert internal not in done.stderr


def test_the_users_line_is_shown(folder):
    done = shardinit(folder, "run", "net.py:build", "--axis-size", "8", "--kwargs", '{"size": 13}')
    assert 'net.py", line 8, in init_state' in done.stderr


def test_progress_bar_on_a_terminal_only(folder):
    command = [sys.executable, "-m", "shardinit.cli.main", "run", "net.py:build", "--axis-size", "8", "--devices", "8"]
    master, slave = pty.openpty()
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=slave, env={**os.environ, "TERM": "xterm"}
    )
    os.close(slave)
    seen = b""
    try:
        while chunk := os.read(master, 4096):
            seen += chunk
    except OSError:
        pass
    assert process.wait(timeout=180) == 0
    assert b"initializing" in seen
    assert b"100%" in seen


def test_help_names_the_exit_codes(folder):
    done = shardinit(folder, "--help")
    assert "3 planning or certificate refused" in " ".join(done.stdout.split())
