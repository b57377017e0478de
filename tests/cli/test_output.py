"""What happens to standard output, and Ctrl-C: one line and the documented code, whatever the command does."""

import json
import re
import signal
import subprocess
import sys

import pytest

NET = """
import brainstate, os
print("imported")
class Net(brainstate.nn.Module):
    def init_state(self):
        print("initializing")
        os.system("echo from a shell")
        self.w = brainstate.ParamState(brainstate.random.normal(size=(3, 4)))
def build():
    return Net()
"""
TARGET = ["net.py:build", "--axis-size", "8", "--devices", "8"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "net.py").write_text(NET)
    return tmp_path


def start(folder, *arguments, stdout=subprocess.PIPE, **options):
    command = [sys.executable, "-m", "shardinit.cli.main", *arguments]
    return subprocess.Popen(command, cwd=folder, stdout=stdout, stderr=subprocess.PIPE, text=True, **options)


def finish(process):
    try:
        return (*process.communicate(timeout=120), process.returncode)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("command", ["run", "plan"])
def test_standard_output_is_the_json_alone(folder, command):
    out, err, code = finish(start(folder, command, *TARGET, "--json"))
    assert code == 0, err
    assert json.loads(out)
    assert out.count("\n") == 1
    for text in ("imported", "initializing", "from a shell"):
        assert text in err


@pytest.mark.parametrize("arguments", [["plan", *TARGET], ["plan", *TARGET, "--json"], ["--help"]], ids=str)
def test_output_that_cannot_be_written_is_one_line(folder, arguments):
    with open("/dev/full", "w") as full:
        _, err, code = finish(start(folder, *arguments, stdout=full))
    assert code == 4
    assert [line for line in err.splitlines() if line.startswith("shardinit:")] == [
        "shardinit: cannot write standard output: No space left on device"
    ]
    assert "Traceback" not in err


def test_a_reader_that_has_seen_enough_is_no_failure(folder):
    process = start(folder, "run", *TARGET)
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(timeout=120) == 0
    assert "Traceback" not in err
    assert "shardinit:" not in err


def test_standard_output_that_is_closed(folder):
    command = f"exec {sys.executable} -m shardinit.cli.main plan {' '.join(TARGET)} >&-"
    done = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


ASK = "import os, signal, time; os.kill(os.getpid(), signal.{})\n"
SWALLOWED = "try:\n    {}except BaseException:\n    pass\ntime.sleep(90)\n"


@pytest.mark.parametrize(
    ("text", "name"),
    [(ASK, "SIGINT"), (ASK, "SIGTERM"), (SWALLOWED.format(ASK), "SIGINT")],
)
def test_asked_to_end_is_one_line_and_13(folder, text, name):
    (folder / "net.py").write_text(text.format(name))
    default = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}  # tests in the background ignore it
    _, err, code = finish(start(folder, "run", *TARGET, **default))
    assert (code, err) == (13, f"shardinit: asked to end by {name}\n")


def test_ctrl_c_during_imports_is_one_line_and_13(folder):
    code = """
import os, signal, sys
_, wanted, *sys.argv[1:] = sys.argv
class Asks:
    def find_spec(self, name, *_):
        if name == wanted:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Asks())
from shardinit.cli.main import main
main()
"""
    for name in ("shardinit.cli.output", "typer", "rich", "jax", "jaxlib._jax", "brainstate"):
        done = subprocess.run(
            [sys.executable, "-c", code, name, "plan", *TARGET],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=120,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            check=False,
        )
        assert (done.returncode, done.stderr) == (13, "shardinit: asked to end by SIGINT\n"), name


def test_version(folder):
    out, _, code = finish(start(folder, "--version"))
    assert code == 0
    assert re.fullmatch(r"shardinit \S+, jax \S+, jaxlib \S+, brainstate \S+, Python 3\.\S+\n", out)


def test_where_the_page_is(folder):
    _, err, code = finish(start(folder, "plan", *TARGET, "--html", "page.html"))
    assert code == 0
    assert "shardinit: wrote the plan's page to page.html\n" in err
    _, err, code = finish(start(folder, "plan", *TARGET, "--html", "/dev/full"))
    assert code == 4
    assert "cannot write /dev/full: No space left on device" in err
