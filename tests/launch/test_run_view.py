"""A run as the files of its folder show it, from folders made by hand."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from shardinit.errors import ArgumentError
from shardinit.launch import run_view
from shardinit.launch.folder import read_record, write_record
from shardinit.launch.run_view import read_run
from shardinit.spec.codec import VERSION
from shardinit.spec.run import EndRecord
from tests.launch.runs import HOST, NO_PROCESS, NOW, Run, text, words


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def test_a_running_rank(run):
    run.rank(devices=("cpu:0", "cpu:1"), started=NOW - 125)
    run.profile(cpu_0=1024, cpu_1=1536)
    view = run.view()
    rank = view.ranks[0]
    assert (rank.condition, rank.notes, view.over) == ("running", (), False)
    assert [(d.name, d.held_bytes, d.planned_bytes) for d in rank.devices] == [
        ("cpu:0", 1024, 2048),
        ("cpu:1", 1536, 2048),
    ]
    shown = text(view)
    for part in (HOST, str(os.getpid()), "executing 3/7", "0:02:05", "1.0 KiB", "1.5 KiB", "2.0 KiB", "3.0 MiB"):
        assert part in shown
    assert "limit" not in shown
    assert "in use" not in shown


@pytest.mark.parametrize(
    ("status", "profile"),
    [("cpu:2048", "cpu_2048"), ("TFRT_CPU_3", "cpu_3"), ("cuda:1", "gpu_1"), ("tpu:3", "TPU_3(process=1,(1,1,0,0))")],
)
def test_profile_and_status_name_devices_in_different_ways(run, status, profile):
    run.rank(devices=[status])
    run.profile(**{profile: 77})
    assert [(d.name, d.held_bytes) for d in run.view().ranks[0].devices] == [(status, 77)]


def test_a_device_that_only_the_profile_has_is_shown_without_a_plan(run):
    run.rank(devices=["cuda:0"])
    run.profile(cpu_0=5)
    devices = run.view().ranks[0].devices
    assert [(d.name, d.held_bytes, d.planned_bytes) for d in devices] == [("cuda:0", 0, 2048), ("cpu:0", 5, None)]


def test_without_smi_nothing_is_known_to_be_held(run):
    run.rank()
    assert run.view().ranks[0].devices[0].held_bytes is None


@pytest.mark.parametrize(("age", "condition"), [(4.5, "running"), (5.5, "stale")])
def test_a_status_is_stale_after_five_seconds(run, age, condition):
    run.rank(age=age)
    view = run.view()
    assert view.ranks[0].condition == condition
    assert ("status.json is 6 s old, usually 1 s" in words(view)) == (condition == "stale")


@pytest.mark.parametrize(("age", "condition"), [(4, "running"), (8, "stale")])
def test_a_profile_is_stale_after_five_seconds(run, age, condition):
    run.rank()
    run.profile(age=age, cpu_0=1)
    view = run.view()
    assert view.ranks[0].condition == condition
    assert ("memory.prof is" in text(view)) == (condition == "stale")


def test_a_rank_whose_process_is_not_there_is_gone(run):
    run.rank(pid=NO_PROCESS, age=3)
    view = run.view()
    assert (view.ranks[0].condition, view.over) == ("gone", True)
    assert f"rank 0: its process pid={NO_PROCESS} is not there any more on {HOST}" in words(view)


def test_another_process_with_the_same_id_is_not_the_rank(run):
    run.rank(started=psutil.Process().create_time() - 60, age=3)
    assert run.view().ranks[0].condition == "gone"


def test_a_process_of_another_host_is_judged_by_its_files(run):
    run.rank(pid=NO_PROCESS, host="elsewhere", age=3)
    assert run.view().ranks[0].condition == "running"
    run.rank(pid=NO_PROCESS, host="elsewhere", age=30)
    assert run.view().ranks[0].condition == "stale"


def test_a_fresh_file_proves_a_process_that_a_container_hides(run):
    run.rank(pid=NO_PROCESS, age=0.5)
    assert run.view().ranks[0].condition == "running"


def test_a_process_that_nobody_waited_for_is_gone(run):
    child = subprocess.Popen([sys.executable, "-c", ""])
    deadline = time.monotonic() + 20
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.02)
    run.rank(pid=child.pid, started=time.time(), age=3)
    assert run.view().ranks[0].condition == "gone"
    child.wait()


def test_why_a_rank_has_ended(tmp_path):
    run = Run(tmp_path, 3)
    for rank in range(3):
        run.rank(rank, age=60, state="finished" if rank == 0 else "executing", started=NOW - 11)
    run.ended(0, code=0, why="")
    run.ended(1, code=11, why="lost a peer")
    run.ended(2, code=-9, why="rank 2 (pid 7 on n1) was ended by SIGKILL")
    view = run.view()
    assert [(r.condition, r.code) for r in view.ranks] == [("ended", 0), ("gone", 11), ("gone", -9)]
    assert [r.elapsed for r in view.ranks] == pytest.approx([10, 10, 10])
    shown = words(view)
    for part in ("3 ranks, 1 ended, 2 gone", "gone, code 11", "gone, code 137", "rank 1: lost a peer"):
        assert part in shown
    assert "lost a peer rank 2 (pid 7 on n1) was ended by SIGKILL" in shown
    assert view.over


def test_a_rank_that_ended_before_it_wrote_anything(run):
    run.ended(code=2, why="bad target")
    view = run.view()
    assert (view.ranks[0].condition, view.ranks[0].code, view.over) == ("gone", 2, True)


def test_ranks_that_never_appeared(tmp_path):
    run = Run(tmp_path, 3)
    run.rank(1)
    view = run.view()
    assert [r.condition for r in view.ranks] == ["not started", "running", "not started"]
    assert "2 not started" in words(view)


def test_a_run_is_over_only_when_nothing_more_can_come(tmp_path):
    run = Run(tmp_path, 2)
    run.rank(0)
    run.ended(0, code=0)
    assert not run.view().over
    run.launch(pid=NO_PROCESS)
    assert run.view().over


def test_without_launch_json_the_ranks_say_how_many_they_are(run):
    run.rank(0, processes=4)
    (run.folder / "launch.json").unlink()
    assert [r.condition for r in run.view().ranks] == ["running", *["not started"] * 3]


def test_a_half_written_file_is_read_again(run, monkeypatch):
    status = run.rank() / "status.json"
    whole = status.read_text()
    status.write_text(whole[:40])
    monkeypatch.setattr(run_view.time, "sleep", lambda _: status.write_text(whole))
    assert run.view().ranks[0].condition == "running"


@pytest.mark.parametrize("broken", ["", '{"version": 1, "ra', "[1, 2]", "\0\xff"])
def test_a_file_that_stays_broken_is_not_fatal(run, monkeypatch, broken):
    monkeypatch.setattr(run_view, "PAUSE", 0.0)
    (run.rank() / "status.json").write_text(broken)
    view = run.view()
    assert (view.ranks[0].condition, view.over) == ("unreadable", False)
    assert "rank 0: status.json cannot be read (yet)" in words(view)


def test_a_broken_launch_json_is_not_fatal(run, monkeypatch):
    monkeypatch.setattr(run_view, "PAUSE", 0.0)
    (run.folder / "launch.json").write_text("{")
    assert "launch.json cannot be read (yet)" in words(run.view())
    assert not run.view().over


def test_a_broken_profile_is_said_and_the_rest_shown(run):
    (run.rank() / "memory.prof").write_bytes(b"\x1f\x8bnot whole")
    view = run.view()
    assert view.ranks[0].devices[0].held_bytes is None
    assert "as a device memory profile" in words(view)


@pytest.mark.parametrize("fields", [{"pid": "x"}, {"time": None}, {"host": 3}, {"unknown": 1}, {"version": 2}])
def test_a_status_of_another_form_is_named(run, monkeypatch, fields):
    monkeypatch.setattr(run_view, "PAUSE", 0.0)
    run.rank(**fields)
    view = run.view()
    assert view.ranks[0].condition == "unreadable"
    (name,) = fields
    shown = f"version=2, this shardinit reads version={VERSION}" if name == "version" else name
    assert "rank 0: status.json cannot be read (yet): this RankStatus" in words(view)
    assert shown in words(view)


def test_a_run_with_an_exit_record_is_over(tmp_path):
    """Whoever comes later believes that file alone."""
    run = Run(tmp_path, 2)
    run.rank(0)
    assert not run.view().over
    write_record(tmp_path / "exit.json", EndRecord(11, "rank 1 died", NOW), sync=True)
    assert run.view().over
    assert read_record(tmp_path / "exit.json", EndRecord) == EndRecord(11, "rank 1 died", NOW)


def test_no_folder(tmp_path):
    with pytest.raises(ArgumentError, match=r"there is no folder .*no-such.*--run-folder"):
        read_run(tmp_path / "no-such", NOW)


def test_no_run_names_the_nearest(tmp_path):
    with pytest.raises(ArgumentError, match=r"no run in .*--run-folder"):
        read_run(tmp_path, NOW)
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        Run(tmp_path / name).rank()
    os.utime(tmp_path / "old" / "launch.json", (1, 1))
    with pytest.raises(ArgumentError, match=rf"Try: shardinit top {tmp_path}/new$"):
        read_run(tmp_path, NOW)
    with pytest.raises(ArgumentError, match=rf"Try: shardinit top {tmp_path}/new$"):
        read_run(tmp_path / "new" / "rank-0", NOW)
    with pytest.raises(ArgumentError, match=rf"Try: shardinit top {tmp_path}/new$"):
        read_run(tmp_path / "nwe", NOW)


def test_the_folder_may_be_relative(run, monkeypatch):
    run.rank()
    monkeypatch.chdir(run.folder.parent)
    assert read_run(Path(run.folder.name), NOW).ranks[0].condition == "running"
