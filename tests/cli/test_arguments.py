"""Arguments that cannot be right are said before anything starts."""

import ast
import time

import pytest

from shardinit.backend import emulate
from shardinit.cli.target import _names, check_target
from shardinit.errors import ArgumentError, TargetError
from tests.cli.test_output import finish, start


@pytest.mark.parametrize("seed", ["99999999999999999999", "-1", str(2**32)])
def test_a_seed_that_jax_would_make_another_of_is_refused(tmp_path, seed):
    _, err, code = finish(start(tmp_path, "run", "net.py:build", "--axis-size", "8", f"--seed={seed}"))
    assert code == 2
    assert err.startswith(f"shardinit: --seed {seed} is outside of 0 to 4294967295")
    assert err.count("\n") == 1


def test_devices_for_which_there_is_no_memory_are_refused(monkeypatch):
    monkeypatch.setattr(emulate.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 100 * 2**20}))
    with pytest.raises(ArgumentError, match=r"n=1000 .* available memory=100.0 MiB.* at most n=512"):
        emulate._check_room(1000)
    emulate._check_room(512)


def test_devices_for_which_there_are_no_threads_are_refused(monkeypatch):
    monkeypatch.setattr(emulate, "_most_threads", lambda: 1300)
    with pytest.raises(ArgumentError, match=r"most threads=1300\. Pass at most n=1000"):
        emulate._check_room(1001)


def test_too_many_devices_end_with_2(tmp_path):
    (tmp_path / "net.py").write_text("build = None\n")
    command = ["run", "net.py:build", "--axis-size", "8", "--devices", "100000000"]
    _, err, code = finish(start(tmp_path, *command))
    assert code == 2
    assert err.startswith("shardinit: n=100000000 CPU devices cannot be emulated here")


FILES = {
    "syntax.py": "x = 1\ndef build(:\n",
    "net.py": "def build():\n    return None\nclass Net: ...\n",
    "star.py": "from net import *\n",
    "pkg.py": "from net import build as other\n",
}


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("no.py:build", r"no file no\.py"),
        ("net.py", "has no factory"),
        ("no_such_module:build", "no module 'no_such_module'"),
        ("syntax.py:build", r"syntax\.py, line 2: SyntaxError"),
        ("syntax:build", r"syntax\.py, line 2: SyntaxError"),
        ("net.py:bild", "It defines: Net, build"),
        ("net:bild", "It defines: Net, build"),
        ("pkg.py:build", "It defines: other"),
    ],
)
def test_bad_targets_are_found_without_importing_them(tmp_path, monkeypatch, target, message):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TargetError, match=message):
        check_target(target)


@pytest.mark.parametrize("target", ["net.py:build", "net:build", "star.py:build", "pkg.py:other", "json.tool:main"])
def test_what_may_be_right_is_left_to_the_import(tmp_path, monkeypatch, target):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    check_target(target)


@pytest.mark.parametrize(
    "text",
    [
        "build = f()",
        "a, (build, *c) = f()",
        "build: int = 3",
        "if x:\n    import build",
        "for build in y: ...",
        "with f() as build: ...",
        "(build := 3)",
        "globals()['build'] = f",
        "def __getattr__(name): ...",
    ],
)
def test_every_way_to_bind_a_name_is_known(text):
    names = _names(ast.parse(text))
    assert names is None or "build" in names


def test_launch_says_so_before_it_starts_anything(tmp_path):
    (tmp_path / "net.py").write_text("def build():\n    return None\n")
    began = time.monotonic()
    _, err, code = finish(start(tmp_path, "launch", "--processes", "2", "net.py:bild", "--axis-size", "4"))
    assert (code, err) == (2, "shardinit: net.py has no 'bild'. It defines: build.\n")
    assert not (tmp_path / "shardinit-runs").exists()
    assert time.monotonic() - began < 60


def test_a_failure_of_two_lines_is_summarized_by_its_first(tmp_path):
    (tmp_path / "net.py").write_text('def build():\n    raise ValueError("the first line\\nand by the way.")\n')
    command = ["launch", "--processes", "1", "--devices-per-process", "1", "net.py:build", "--axis-size", "4"]
    _, err, code = finish(start(tmp_path, *command))
    assert code == 2
    assert err.splitlines()[-1].endswith("exit code 2: ValueError: the first line.")


@pytest.mark.parametrize(
    ("command", "size"), [(["run", "--devices", "2"], -3), (["plan", "--topology", "cpu:8"], 10**20)]
)
def test_impossible_sizes_end_with_2(tmp_path, command, size):
    (tmp_path / "net.py").write_text(
        "import brainstate\n"
        "class Net(brainstate.nn.Module):\n"
        "    def init_state(self, size):\n"
        "        self.v = brainstate.ParamState(brainstate.random.uniform(size=(size,)).sum())\n"
        "build = Net\n"
    )
    kwargs = ["--axis-size", "8", "--kwargs", f'{{"size": {size}}}']
    out, err, code = finish(start(tmp_path, *command, "net.py:build", *kwargs))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"init makes an array float32[{size}] at {tmp_path}/net.py:4 (init_state)" in err


def test_a_card_file_is_the_memory_of_a_topology(tmp_path):
    (tmp_path / "net.py").write_text(
        "import brainstate\n"
        "class Net(brainstate.nn.Module):\n"
        "    def init_state(self):\n"
        "        self.v = brainstate.ParamState(brainstate.random.uniform(size=(3,)))\n"
        "build = Net\n"
    )
    (tmp_path / "card.txtpb").write_text("gpu_device_info { device_memory_size: 51539607552 }")
    command = ["plan", "net.py:build", "--axis-size", "8", "--card", "card.txtpb"]
    out, err, code = finish(start(tmp_path, *command, "--topology", "gpu:2x4"))
    assert code == 0, err
    assert "of 34.2 GiB, at v" in out  # three quarters of 48 GiB, less 5%
    _, err, code = finish(start(tmp_path, *command))
    assert (code, err.count("\n")) == (2, 1)
    assert "Add for example --topology gpu:2x4" in err
