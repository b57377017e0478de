"""A run's folder that is in use, cannot be written, or is full."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shardinit.errors import LaunchError
from shardinit.launch.folder import why_not_writable
from shardinit.launch.lock import hold, release
from shardinit.launch.logs import Tail
from tests.cli.test_output import finish, start

HOLD = "import sys; from pathlib import Path; from shardinit.launch.lock import hold; hold(Path(sys.argv[1]), 0)"


@pytest.fixture
def holder(tmp_path):
    command = [sys.executable, "-c", f"{HOLD}; print('held', flush=True); sys.stdin.read()", str(tmp_path / "run")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_folder_in_use_is_refused_by_name_until_its_owner_is_gone(holder, tmp_path):
    with pytest.raises(LaunchError, match=rf"run is in use: pid={holder.pid} on .* rank 0 since 20"):
        hold(tmp_path / "run", 0)
    holder.kill()
    holder.wait()
    hold(tmp_path / "run", 0)


def test_its_own_process_is_refused_too_and_loses_nothing_by_it(tmp_path):
    hold(tmp_path / "own", 0)
    with pytest.raises(LaunchError, match=rf"own is in use: pid={os.getpid()} on"):
        hold(tmp_path / "own", 0)
    command = [sys.executable, "-c", HOLD, str(tmp_path / "own")]
    other = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert f"in use: pid={os.getpid()}" in other.stderr  # the refusal did not let go of the lock
    release(tmp_path / "own", 0)
    assert subprocess.run(command, timeout=60).returncode == 0


def test_other_ranks_of_a_job_share_the_folder(holder, tmp_path):
    hold(tmp_path / "run", 1)


@pytest.mark.parametrize("command", [["launch", "--processes", "2"], ["run"]], ids=["launch", "run"])
def test_the_command_refuses_a_folder_in_use(holder, tmp_path, command):
    (tmp_path / "net.py").write_text("def build(): ...\n")
    arguments = [*command, "--run-folder", "run", "net.py:build", "--axis-size", "4"]
    _, err, code = finish(start(tmp_path, *arguments))
    assert code == 2
    assert f"the run's folder run is in use: pid={holder.pid}" in err
    assert "Traceback" not in err


def test_a_folder_that_cannot_be_written_is_bad_usage(tmp_path):
    (tmp_path / "net.py").write_text("def build(): ...\n")
    (tmp_path / "file").write_text("")
    arguments = ["launch", "--processes", "2", "--run-folder", "file/run", "net.py:build", "--axis-size", "4"]
    _, err, code = finish(start(tmp_path, *arguments))
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("shardinit: cannot write the run's folder file/run: Not a directory")


def test_a_log_that_is_removed_is_read_on(tmp_path):
    path = tmp_path / "stderr.log"
    with open(path, "wb") as log:
        tail = Tail(path, 0, "stderr")
        os.unlink(path)
        log.write(b"after\n")
        log.flush()
        assert tail.new_lines() == ["after"]
    assert Tail(path, 0, "stderr").new_lines(last=True) == []


def test_why_nothing_can_be_written(tmp_path):
    assert why_not_writable(tmp_path) == ""
    assert why_not_writable(tmp_path / "removed") == "No such file or directory"
    assert why_not_writable(Path("/proc")) != ""


NET = """
import brainstate, os
class Net(brainstate.nn.Module):
    def init_state(self):
        self.w = brainstate.ParamState(brainstate.random.normal(size=(3, 4)))
def build():
    os.rename(os.environ["SHARDINIT_RUN_FOLDER"], "removed")
    print("removed")
    return Net()
"""


def test_a_folder_that_is_removed_meanwhile_is_one_warning_and_not_the_end(tmp_path):
    (tmp_path / "net.py").write_text(NET)
    command = ["launch", "--processes", "1", "--devices-per-process", "2", "net.py:build", "--axis-size", "4"]
    out, err, code = finish(start(tmp_path, *command, "--run-folder", "run"))
    assert code == 0, err
    assert "[0] removed" in out
    assert "equal to the plan" in out
    assert err.count("warning: cannot write the run's folder") == 1
    assert "Traceback" not in err
