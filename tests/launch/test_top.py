"""What ``shardinit top`` prints and draws, from folders made by hand."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest

from shardinit.errors import ArgumentError
from shardinit.launch.run_view import read_run
from shardinit.launch.top import show
from shardinit.spec.codec import VERSION, to_json
from shardinit.spec.run import DeviceStatus
from tests.launch.runs import NOW, Run, text


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def test_the_devices_own_figures_where_it_has_them(run):
    run.rank(devices=[DeviceStatus("cuda:0", bytes_in_use=4096, peak_bytes_in_use=5120)])
    shown = text(run.view())
    assert "4.0 KiB" in shown
    assert "5.0 KiB" in shown
    assert "limit" not in shown


def test_json_has_everything(run, capsys):
    run.rank()
    run.profile(cpu_0=9)
    show(run.folder, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["version"] == VERSION
    assert found["ranks"][0]["devices"][0]["held_bytes"] == 9
    assert found == json.loads(to_json(read_run(run.folder, NOW))) | {"ranks": found["ranks"]}


@pytest.mark.parametrize("interval", [0.0, -1.0, float("nan")])
def test_an_interval_that_cannot_be(run, interval):
    with pytest.raises(ArgumentError, match="interval="):
        show(run.folder, interval)


def test_printed_once_where_nobody_looks(run, capsys):
    run.rank()
    show(run.folder)  # would not come back, for the rank runs
    assert capsys.readouterr().out.count("executing 3/7") == 1


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("gpu", [False, True])
def test_no_column_is_cut_off(tmp_path, width, gpu):
    run = Run(tmp_path, 2)
    figures = {"bytes_in_use": 123456789, "peak_bytes_in_use": 2**37, "bytes_limit": 2**37} if gpu else {}
    run.rank(1, devices=[DeviceStatus("cuda:2048", **figures)], state="discovering", planned_bytes=123456789)
    run.profile(1, cpu_0=3)
    lines = text(run.view(), width).splitlines()
    head = next(line for line in lines if line.startswith("rank "))
    assert head.rstrip().endswith("age")
    assert max(map(len, lines)) <= width
    for whole in ("discovering", "117.7", *(["128.0"] if gpu else [])):
        assert whole in "\n".join(lines)


class Terminal:
    """``show`` in a process of its own, at a terminal."""

    def __init__(self, folder):
        self.master, slave = pty.openpty()
        code = f"from pathlib import Path; from shardinit.launch.top import show; show(Path({str(folder)!r}), 0.1)"
        env = {**os.environ, "COLUMNS": "110", "LINES": "30", "TERM": "xterm"}
        command = [sys.executable, "-c", code]
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=env,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background ignore it
        )
        os.close(slave)
        self.seen = ""

    def read_until(self, part, seconds=20.0):
        deadline = time.monotonic() + seconds
        while part not in self.seen and time.monotonic() < deadline:
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.master, 65536).decode()
                except OSError:  # how Linux says that the other side is closed
                    break
        assert part in self.seen

    def close(self):
        os.close(self.master)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)


@pytest.fixture
def terminal(run):
    run.rank(time=time.time() + 3600)  # fresh for as long as the test runs
    found = Terminal(run.folder)
    yield found
    found.close()


def test_a_terminal_is_refreshed_until_every_rank_has_ended(run, terminal):
    terminal.read_until("executing 3/7")
    run.rank(time=time.time() + 3600, done=4)
    terminal.read_until("executing 4/7")
    assert terminal.process.poll() is None
    run.ended(code=11, why="lost a peer")
    terminal.read_until("lost a peer")
    assert terminal.process.wait(20) == 0


def test_ctrl_c_leaves_quietly(terminal):
    terminal.read_until("executing 3/7")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.process.wait(20) == 0
    terminal.read_until("\x1b[?25h")  # the cursor is back
    assert "Traceback" not in terminal.seen


def test_watching_needs_no_jax(run):
    run.rank()
    code = f"import sys, pathlib; from shardinit.launch.top import show; show(pathlib.Path({str(run.folder)!r}))"
    code += "; assert not {'jax', 'brainstate'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "executing 3/7" in done.stdout
