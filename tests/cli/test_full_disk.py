"""A full disk: lost logs are a warning and never a job's end; lost results end with 4; never a traceback."""

import contextlib
import resource
import threading
from pathlib import Path

import brainstate
import pytest
import typer

import shardinit
from shardinit.backend import rank as ranks
from shardinit.certifier import children as compilers
from shardinit.cli import commands, processes
from shardinit.launch import supervisor
from shardinit.launch.lock import hold
from shardinit.launch.logs import Tail
from tests.cli.test_output import NET, TARGET, finish, start

LOST = "cannot write the run's folder run: File too large; logs and status are lost"


@contextlib.contextmanager
def full_disk():
    """No file may grow, as on a full disk, but for the error's number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def start_on_a_full_disk(folder, *command):
    (folder / "net.py").write_text(NET)
    with full_disk():  # which the child inherits
        return finish(start(folder, *command))


def own_lines(err):
    return [line.removeprefix("shardinit: ") for line in err.splitlines() if line.startswith("shardinit: ")]


def test_a_run_goes_on_without_logs(tmp_path):
    out, err, code = start_on_a_full_disk(tmp_path, "run", *TARGET, "--smi", "--run-folder", "run")
    assert code == 0, err
    assert "equal to the plan" in out
    warnings = own_lines(err)
    assert warnings.count(f"warning: {LOST}") == 1
    assert sum(line.startswith("warning: jax-smi ends: ") for line in warnings) == 1
    assert "Traceback" not in err
    assert "ignored" not in err


@pytest.mark.parametrize(("more", "expected"), [([], 0), (["--json"], 4)], ids=["table", "json"])
def test_a_job_goes_on_without_logs_but_says_that_its_json_is_lost(tmp_path, more, expected):
    launch = ["launch", "--processes", "1", "--run-folder", "run"]
    out, err, code = start_on_a_full_disk(tmp_path, *launch, *TARGET, *more)
    assert (code, out) == (expected, "")
    assert own_lines(err).count(f"warning: {LOST}") == 1
    assert "Traceback" not in err


def test_logs_are_in_memory_where_there_is_no_room(tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "why_not_writable", lambda folder: "No space left on device")
    with supervisor._log(tmp_path / "stdout.log") as log:
        tail = Tail(supervisor._path_to_read(log), 0, "stdout")
        log.write(b"first\nsec")
        log.flush()
        assert tail.new_lines() == ["first"]
    assert tail.new_lines(last=True) == ["sec"]
    assert not (tmp_path / "stdout.log").exists()


def test_a_lock_is_held_though_its_owner_cannot_be_written(tmp_path):
    with full_disk(), pytest.raises(OSError, match="File too large"):
        hold(tmp_path, 0)
    assert (tmp_path / "rank-0" / "owner.json").read_text() == ""


def test_a_rank_without_any_folder_has_none(monkeypatch):
    monkeypatch.setattr(processes.tempfile, "mkdtemp", lambda **_: (_ for _ in ()).throw(FileNotFoundError))
    assert not processes._new_temporary_folder().exists()


def test_half_a_page_is_not_left(tmp_path, capsys):
    page = tmp_path / "page.html"
    with full_disk(), pytest.raises(typer.Exit) as left:
        commands._write(page, "x" * 100_000)
    assert left.value.exit_code == 4
    assert capsys.readouterr().err == (
        f"shardinit: cannot write {page}: File too large. Name another file by --html FILE\n"
    )
    assert not page.exists()


def test_a_page_for_a_folder_that_is_not_there_is_bad_usage(tmp_path):
    with pytest.raises(typer.Exit) as left:
        commands._write(tmp_path / "none" / "page.html", "x")
    assert left.value.exit_code == 2


@pytest.fixture(scope="module")
def plan():
    class Net(brainstate.nn.Module):
        def init_state(self):
            self.v = brainstate.ParamState(brainstate.random.normal(size=(3,)))

    return shardinit.plan(shardinit.discover(Net()), "cpu:8", axis_size=8)


def test_a_certificate_without_room_is_no_refusal(plan, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with full_disk(), pytest.raises(shardinit.CertificateError, match=r"File too large\. Make room, or set TMPDIR"):
        plan.certify(workers=1)
    assert list(tmp_path.iterdir()) == []


def test_a_compiler_that_has_no_room_is_no_refusal(plan, monkeypatch):
    monkeypatch.setattr(compilers, "CHILD", Path("/dev/null"))  # ends at once, as for want of room
    monkeypatch.setattr(compilers, "_check_room", full_folder)
    with pytest.raises(shardinit.CertificateError, match="No space left on device"):
        plan.certify(workers=1)


def full_folder(folder):
    raise OSError(28, "No space left on device")


def test_other_threads_still_say_what_ended_them(capsys):
    ranks._end_of_thread(threading.ExceptHookArgs((OSError, OSError("of a user"), None, None)))
    assert "OSError: of a user" in capsys.readouterr().err
