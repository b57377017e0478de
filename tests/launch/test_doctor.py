"""The doctor finds what is broken on purpose."""

import importlib.metadata
import json
import os
import subprocess
import sys
import time

import psutil
import pytest

import shardinit.versions
from shardinit.launch import doctor, doctor_jax, doctor_machine
from shardinit.launch.doctor import run_checks, show
from shardinit.launch.doctor_probe import Backend, Finding, ask_backend
from shardinit.spec.codec import VERSION
from tests.launch.test_doctor_machine import here, no_file

EMULATED = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "3", "PJRT_NPROC": "4"}


# Python and packages


def test_a_healthy_python(monkeypatch):
    assert doctor_jax.python(here()).status == "ok"
    assert doctor_jax.packages(here()).status == "ok"
    assert f"jax {importlib.metadata.version('jax')}" in doctor_jax.packages(here()).what


@pytest.mark.parametrize("version", ["3.10.14", "2.7.18"])
def test_a_python_that_is_too_old(monkeypatch, version):
    monkeypatch.setattr(doctor_jax.platform, "python_version", lambda: version)
    found = doctor_jax.python(here())
    assert (found.status, found.fix) == ("problem", "Install a Python >=3.11.")


def versions(monkeypatch, **changed):
    real = doctor_jax.version_of
    for place in (doctor_jax, shardinit.versions):
        monkeypatch.setattr(place, "version_of", lambda name: changed.get(name.replace("-", "_"), real(name)))


def test_a_jax_out_of_bounds(monkeypatch):
    versions(monkeypatch, jax="99.0")
    found = doctor_jax.packages(here())
    assert found.status == "problem"
    assert "jax 99.0 (needs <" in found.what
    assert found.fix.startswith('pip install "jax<')


def test_a_jaxlib_of_another_jax(monkeypatch):
    versions(monkeypatch, jaxlib="0.9.0")
    found = doctor_jax.packages(here())
    assert found.status == "problem"
    assert "jaxlib 0.9.0" in found.what


def test_a_plugin_of_another_jaxlib(monkeypatch):
    versions(monkeypatch, jax_cuda12_plugin="0.9.9")
    found = doctor_jax.packages(here())
    jaxlib = importlib.metadata.version("jaxlib")
    assert (found.status, found.fix) == ("problem", f'pip install "jax-cuda12-plugin=={jaxlib}"')


def test_a_missing_package(monkeypatch):
    versions(monkeypatch, brainstate=None)
    found = doctor_jax.packages(here())
    assert "brainstate missing" in found.what
    assert 'pip install "brainstate' in found.fix


# backend


def test_the_backend_is_seen_by_a_child():
    seen = ask_backend({**os.environ, **EMULATED})
    assert (seen.platform, seen.kinds, seen.bytes_limits) == ("cpu", ("cpu",) * 3, (None,) * 3)
    found = doctor_jax.backend(here(EMULATED, backend=seen))
    assert found.status == "ok"
    assert found.what.startswith("cpu: 3 x cpu; started in ")


def test_a_backend_that_hangs_is_ended_with_all_its_processes(tmp_path):
    note = tmp_path / "pid"
    code = (
        "import pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"pathlib.Path({str(note)!r}).write_text(str(child.pid))\n"
        "time.sleep(600)\n"
    )
    start = time.monotonic()
    seen = ask_backend(os.environ, timeout=1.5, code=code)
    assert time.monotonic() - start < 10
    assert seen.timed_out
    pid = int(note.read_text())
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    found = doctor_jax.backend(here(backend=seen))
    assert found.status == "problem"
    assert "did not start within 2 s" in found.what


def test_a_backend_that_is_not_there():
    env = {"JAX_PLATFORMS": "none_such"}
    found = doctor_jax.backend(here(env, backend=ask_backend({**os.environ, **env})))
    assert found.status == "problem"
    assert "none_such" in found.what
    assert "JAX_PLATFORMS=none_such" in found.fix


def test_a_backend_that_is_killed_names_the_signal():
    seen = ask_backend(os.environ, code="import os; os.kill(os.getpid(), 6)")
    assert "SIGABRT" in doctor_jax.backend(here(backend=seen)).what


def test_an_accelerator_that_jax_does_not_see(monkeypatch):
    monkeypatch.setattr(doctor_jax, "accelerator_files", lambda: ["/dev/nvidia0"])
    cpu = Backend("cpu", ("cpu",), (None,))
    found = doctor_jax.backend(here(backend=cpu))
    assert (found.status, "shardinit[cuda12]" in found.fix) == ("warning", True)
    assert doctor_jax.backend(here({"JAX_PLATFORMS": "cpu"}, backend=cpu)).status == "ok"


def test_memory_of_devices_is_told():
    seen = Backend("gpu", ("NVIDIA H100",) * 2, (2**36, 2**36))
    assert doctor_jax.backend(here(backend=seen)).what.startswith("gpu: 2 x NVIDIA H100, 64.0 GiB each")


# flags and threads


def test_an_unknown_flag_is_named():
    env = {"XLA_FLAGS": "--xla_no_such_flag=1", "JAX_PLATFORMS": "cpu"}
    seen = ask_backend({**os.environ, **env})
    found = doctor_jax.xla_flags(here(env, backend=seen))
    assert found.status == "problem"
    assert "--xla_no_such_flag=1 is unknown" in found.what
    assert doctor_jax.backend(here(env, backend=seen)).status == "problem"


@pytest.mark.parametrize(
    ("flags", "status"),
    [
        ("", "ok"),
        ("--xla_force_host_platform_device_count=2", "ok"),
        ("--xla_tpu_enable_latency_hiding_scheduler=true", "problem"),
        ("--xla_dump_to=/tmp --megascale_debug_port=8081", "problem"),
        ("no_dash", "problem"),
    ],
)
def test_flags_that_abort(flags, status):
    found = doctor_jax.xla_flags(here({"XLA_FLAGS": flags}))
    assert found.status == status
    assert ("LIBTPU_INIT_ARGS" in found.fix) == ("tpu" in flags or "megascale" in flags)


FORCED = "--xla_force_host_platform_device_count=8"


@pytest.mark.parametrize(
    ("env", "status", "part"),
    [
        ({}, "ok", "no emulated devices"),
        (
            {"JAX_NUM_CPU_DEVICES": "8", "PJRT_NPROC": "8"},
            "problem",
            "emulated devices=8 (JAX_NUM_CPU_DEVICES), threads=8",
        ),
        ({"JAX_NUM_CPU_DEVICES": "8", "PJRT_NPROC": "9"}, "ok", "threads=9"),
        ({"XLA_FLAGS": FORCED, "PJRT_NPROC": "4"}, "problem", "emulated devices=8 (XLA_FLAGS), threads=4"),
        ({"XLA_FLAGS": FORCED, "JAX_NUM_CPU_DEVICES": "2", "PJRT_NPROC": "3"}, "ok", "devices=2 (JAX_NUM_CPU_DEVICES)"),
        ({"JAX_NUM_CPU_DEVICES": "8"}, "problem", "threads=8 (the processors; PJRT_NPROC is not set)"),
        ({"JAX_NUM_CPU_DEVICES": "7"}, "ok", "threads=8 (the processors"),
        ({"JAX_NUM_CPU_DEVICES": "1", "PJRT_NPROC": "1"}, "ok", "no emulated devices"),
        ({"JAX_NUM_CPU_DEVICES": "many"}, "problem", "JAX_NUM_CPU_DEVICES: 'many' is not a number"),
        ({"PJRT_NPROC": "-3"}, "problem", "PJRT_NPROC: '-3' is not a number"),
    ],
)
def test_threads_against_emulated_devices(monkeypatch, env, status, part):
    monkeypatch.setattr(doctor_jax, "_processors", lambda: 8)
    found = doctor_jax.threads(here(env))
    assert found.status == status
    assert part in found.what
    if "wait for each other" in found.what:
        assert "PJRT_NPROC=9" in found.fix


def test_threads_do_not_matter_on_a_gpu():
    env = {"JAX_NUM_CPU_DEVICES": "8", "PJRT_NPROC": "2"}
    assert doctor_jax.threads(here(env, backend=Backend("gpu"))).status == "ok"


# all together


def test_all_checks_in_one_go(tmp_path, capsys):
    env = {"PATH": os.environ["PATH"], **EMULATED, "BRAINEVENT_CACHE_DIR": str(no_file(tmp_path))}
    findings = run_checks(env, folder=tmp_path)
    assert len(findings) == len(doctor.CHECKS) == len({finding.name for finding in findings})
    by_name = {finding.name: finding for finding in findings}
    assert by_name["backend"].what.startswith("cpu: 3 x cpu")
    assert by_name["cache folder"].status == "problem"
    assert not any("check itself failed" in finding.what for finding in findings)
    assert show(findings) == 1
    shown = capsys.readouterr().out
    assert "BRAINEVENT_CACHE_DIR" in shown
    assert "1 problem, " in shown


def test_exit_status_and_json(capsys):
    well = [Finding("a", "ok", "fine"), Finding("b", "warning", "hm", "do")]
    assert show(well, as_json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["version"], found["problems"], found["warnings"]) == (VERSION, 0, 1)
    assert found["findings"][1] == {"name": "b", "status": "warning", "what": "hm", "fix": "do"}
    assert show([*well, Finding("c", "problem", "bad", "mend")], as_json=True) == 1
    capsys.readouterr()


def test_a_check_that_fails_does_not_hide_the_others(monkeypatch):
    def broken(_):
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(doctor, "CHECKS", (broken, doctor_machine.loopback))
    monkeypatch.setattr(doctor, "ask_backend", lambda *_: Backend())
    first, second = run_checks({})
    assert (first.status, "ZeroDivisionError: oh" in first.what) == ("warning", True)
    assert second.status == "ok"


def test_the_doctor_needs_no_jax():
    code = "import sys, os; from shardinit.launch.doctor import run_checks, show; show(run_checks(os.environ), True)"
    code += "; assert not {'jax', 'brainstate'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_child_does_not_take_a_gpus_memory():
    tell = (
        "import json, os; print(json.dumps({'platform': os.environ['XLA_PYTHON_CLIENT_PREALLOCATE'], 'devices': []}))"
    )
    assert ask_backend({}, code=tell).platform == "false"


def test_a_child_that_says_nothing():
    assert doctor_jax.backend(here(backend=ask_backend({}, code="print('noise')"))).status == "problem"
