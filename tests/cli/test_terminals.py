"""On terminals that are not UTF-8 everything can be printed: bars in ASCII, other letters as their escapes."""

import io
import os
import sys

import brainstate
import pytest

import shardinit
from shardinit.report.terminal import for_terminal
from tests.cli.test_output import finish, start

NET = """
import brainstate
class Net(brainstate.nn.Module):
    def init_state(self):
        print("müde τ")
        self.τ_m = brainstate.ParamState(brainstate.random.normal(size=(3, 4)))
def build():
    return Net()
"""


@pytest.fixture(scope="module")
def result():
    class Net(brainstate.nn.Module):
        def init_state(self):
            self.τ_m = brainstate.ParamState(brainstate.random.normal(size=(30, 4)))
            self.naïve = brainstate.ParamState(brainstate.random.normal(size=(30, 4)))

    return shardinit.shard_new_states(Net(), axis_size=8)


@pytest.fixture(scope="module")
def printed(result):
    return result, result.plan, result.receipt, result.compiled.traced, result.plan.certify(workers=1)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "euc-jp", "utf-8"])
def test_everything_can_be_printed(monkeypatch, printed, encoding):
    written = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", written)
    for each in printed:
        print(each, file=written)
    written.flush()
    text = written.buffer.getvalue().decode(encoding)
    assert "?" not in text
    letters = "τ_m" if encoding in ("utf-8", "euc-jp") else r"\u03c4_m"
    assert letters in text
    first, second = [line for line in text.splitlines() if "ParamState " in line][:2]
    assert first.index("ParamState") == second.index("ParamState")


def test_full_and_empty_parts_of_bars_differ(monkeypatch, result):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert "  device 0   #....... lane 0\n" in str(result.plan)
    assert for_terminal("█▒· ─ ×3 a…z τ") == r"#=. - x3 a~z \u03c4"


def test_a_stream_without_an_encoding_takes_everything(monkeypatch, result):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert "█" in str(result.plan)


@pytest.mark.parametrize(
    ("command", "encoding"),
    [(["run"], "latin-1"), (["launch", "--processes", "1", "--run-folder", "run"], "ascii")],
    ids=str,
)
def test_commands_on_a_terminal_of_another_encoding(tmp_path, command, encoding):
    (tmp_path / "net.py").write_text(NET, encoding="utf-8")
    others = {"env": {**os.environ, "PYTHONIOENCODING": encoding}, "encoding": encoding}
    out, err, code = finish(start(tmp_path, *command, "net.py:build", "--axis-size", "8", "--devices", "2", **others))
    assert code == 0, err
    assert "?" not in out
    assert (r"m\xfcde \u03c4" if encoding == "ascii" else r"müde \u03c4") in out
    assert r"\u03c4_m " in out
    empty = "." if encoding == "ascii" else "·"
    assert f"####{4 * empty} lanes 0-3" in out
    if command[0] == "launch":
        out, err, code = finish(start(tmp_path, "top", "run", "--once", **others))
        assert code == 0, err
        assert "cpu:0" in out
        assert "?" not in out
