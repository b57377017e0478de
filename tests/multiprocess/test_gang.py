"""A gang that Python starts: waited for, stopped, and told of by the files of its run's folder alone."""

import json
import textwrap
import time

import pytest

from shardinit import ArgumentError, JoinError, LaunchError
from shardinit.launch.folder import read_record
from shardinit.launch.gang import start
from shardinit.launch.logs import Echo
from shardinit.spec.run import EndRecord, GangSpec, LaunchRecord

NET = """
import brainstate, time
class Net(brainstate.nn.Module):
    def init_state(self, seconds=0.0):
        time.sleep(seconds)
        self.w = brainstate.ParamState(brainstate.random.normal(size=(3, 100)))
def build():
    return Net()
"""


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "net.py").write_text(textwrap.dedent(NET))

    def made(seconds=0.0, **options):
        arguments = (f"{tmp_path}/net.py:build", "--axis-size", "8", "--kwargs", json.dumps({"seconds": seconds}))
        fields = {"processes": 2, "devices_per_process": 2, "folder": str(tmp_path / "run"), "grace_seconds": 5.0}
        return GangSpec(arguments, **{**fields, **options})

    return made


def test_it_runs_to_its_end(spec, tmp_path):
    gang = start(spec())
    assert gang.wait(120) == 0
    view = gang.status()
    assert (view.over, [rank.condition for rank in view.ranks]) == (True, ["ended", "ended"])
    assert read_record(tmp_path / "run" / "exit.json", EndRecord).code == 0
    assert read_record(tmp_path / "run" / "launch.json", LaunchRecord).processes == 2


def test_it_is_stopped(spec, tmp_path):
    gang = start(spec(seconds=300.0), Echo())
    deadline = time.monotonic() + 60
    while not any(rank.state == "discovering" for rank in gang.status().ranks) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert gang.wait(0.1) is None
    assert not gang.status().over
    gang.stop("somebody wants the machine")
    assert gang.wait(30) == 13
    end = read_record(tmp_path / "run" / "exit.json", EndRecord)
    assert (end.code, end.why) == (13, "somebody wants the machine")
    assert gang.status().over


def test_why_it_cannot_start(spec, tmp_path):
    gang = start(spec(seconds=300.0))
    try:
        with pytest.raises(LaunchError, match="is in use"):
            start(spec(folder=str(tmp_path / "run")))
        port = gang.held.getsockname()[1] - 1
        with pytest.raises(JoinError, match=f"cannot listen on port {port + 1}"):
            start(spec(folder=str(tmp_path / "other"), port=port))
        with pytest.raises(ArgumentError, match="processes=2 has gpus=1"):
            start(spec(gpus=("0",)))
    finally:
        gang.stop()
        assert gang.wait(60) == 13
