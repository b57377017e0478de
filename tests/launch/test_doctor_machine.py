"""The doctor finds what is broken on purpose in the network, the memory and the folders of a machine."""

import socket
import threading
import time
from collections import namedtuple
from pathlib import Path

import pytest

from shardinit.launch import doctor_machine
from shardinit.launch.doctor_probe import Backend, Surroundings

TWO = {"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}


def here(env=None, **fields):
    return Surroundings(env or {}, **fields)


def no_file(tmp_path):
    """A folder that nobody can write, root included: it lies inside of a file."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "folder"


# launcher and network


def test_launcher():
    assert doctor_machine.launcher(here()).what.startswith("none: process 0 of 1")
    found = doctor_machine.launcher(here({"JAX_NUM_PROCESSES": "2"}))
    assert found.status == "problem"
    assert "JAX_NUM_PROCESSES" in found.what


@pytest.mark.parametrize("next_one", [0, 1])
def test_a_port_that_is_taken(next_one):
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        env = {**TWO, "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port - next_one}"}
        found = doctor_machine.ports(here(env))
        assert found.status == "problem"
        assert f"cannot bind port={port}" in found.what
        other = doctor_machine.ports(here({**env, "JAX_PROCESS_ID": "1"}))
        assert (other.status, "process 1 binds none" in other.what) == ("ok", True)


def test_ports_that_are_free():
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
    found = doctor_machine.ports(here({**TWO, "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}"}))
    assert (found.status, found.what) == ("ok", f"{port} and {port + 1} can be bound")


def test_no_loopback(monkeypatch):
    assert doctor_machine.loopback(here()).status == "ok"

    def refuse(*_, **__):
        raise ConnectionRefusedError(111, "refused")

    monkeypatch.setattr(doctor_machine.socket, "create_connection", refuse)
    assert doctor_machine.loopback(here()).status == "problem"


PROXY = {"http_proxy": "http://user:secret@proxy:3128"}


@pytest.mark.parametrize(
    ("env", "status"),
    [
        ({}, "ok"),
        (PROXY, "warning"),
        ({**PROXY, **TWO, "JAX_COORDINATOR_ADDRESS": "n1:9000"}, "problem"),
        ({**PROXY, **TWO, "JAX_COORDINATOR_ADDRESS": "n1:9000", "no_proxy": "localhost,n1"}, "ok"),
    ],
)
def test_a_proxy_in_the_way(env, status):
    found = doctor_machine.proxy(here(env))
    assert found.status == status
    assert ("export no_proxy=" in found.fix) == (status != "ok")
    assert "secret" not in found.what + found.fix


@pytest.mark.parametrize(
    ("addresses", "status", "part"),
    [
        (["10.0.0.7"], "ok", "10.0.0.7"),
        (["127.0.1.1", "::1"], "problem", "no other reaches it"),
        (None, "problem", "is not resolved"),
    ],
)
def test_the_host_name(monkeypatch, addresses, status, part):
    monkeypatch.setattr(doctor_machine, "_addresses", lambda name: addresses)
    found = doctor_machine.host_name(here({**TWO, "JAX_COORDINATOR_ADDRESS": "n1:9000"}))
    assert found.status == status
    assert part in found.what
    assert doctor_machine.host_name(here()).status == ("ok" if status == "ok" else "warning")


def test_a_name_server_that_keeps_silent(monkeypatch):
    monkeypatch.setattr(doctor_machine, "SECONDS", 0.2)
    answered = threading.Event()
    monkeypatch.setattr(doctor_machine.socket, "getaddrinfo", lambda *_: answered.wait(20) and [])
    start = time.monotonic()
    found = doctor_machine.host_name(here())
    answered.set()
    assert time.monotonic() - start < 10
    assert (found.status, "is not resolved" in found.what) == ("warning", True)


# memory, folders, limits

Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(
    ("total", "free", "platform", "status"),
    [
        (2**34, 2**34, "cpu", "ok"),
        (2**26, 2**26, "cpu", "warning"),
        (2**26, 2**26, "gpu", "problem"),
        (2**34, 0, "gpu", "problem"),
    ],
)
def test_shared_memory(monkeypatch, total, free, platform, status):
    monkeypatch.setattr(doctor_machine.shutil, "disk_usage", lambda _: Usage(total, total - free, free))
    found = doctor_machine.shared_memory(here(backend=Backend(platform)))
    assert found.status == status
    assert ("--shm-size" in found.fix) == (status != "ok")


def test_no_shared_memory(tmp_path):
    missing = tmp_path / "missing"
    assert doctor_machine.shared_memory(here(shared_memory=missing, backend=Backend("gpu"))).status == "problem"
    assert doctor_machine.shared_memory(here(shared_memory=missing, backend=Backend("cpu"))).status == "ok"


def test_folders_that_cannot_be_written(tmp_path):
    bad = no_file(tmp_path)
    checks = {
        doctor_machine.run_folder: here(folder=bad),
        doctor_machine.home_cache: here({"HOME": str(bad)}),
        doctor_machine.temporary_folder: here({"TMPDIR": str(bad)}),
        doctor_machine.compilation_cache: here({"JAX_COMPILATION_CACHE_DIR": str(bad)}),
    }
    for check, where in checks.items():
        found = check(where)
        assert found.status == "problem", check
        assert str(bad) in found.what
        assert found.fix


def test_a_file_system_that_refuses_root_too():
    assert doctor_machine.run_folder(here(folder=Path("/proc/self"))).status == "problem"


def test_folders_that_can_be_written_and_are_left_as_they_were(tmp_path):
    home = {"HOME": str(tmp_path / "home")}
    assert doctor_machine.run_folder(here(folder=tmp_path)).status == "ok"
    assert "(to be made)" in doctor_machine.home_cache(here(home)).what
    assert doctor_machine.home_cache(here({**home, "BRAINEVENT_CACHE_DIR": str(tmp_path)})).what.startswith(
        str(tmp_path)
    )
    assert doctor_machine.temporary_folder(here({"TMPDIR": str(tmp_path)})).status == "ok"
    assert doctor_machine.temporary_folder(here({"TMPDIR": str(tmp_path / "missing")})).status == "problem"
    assert doctor_machine.compilation_cache(here({"JAX_COMPILATION_CACHE_DIR": str(tmp_path)})).status == "ok"
    assert "not tried" in doctor_machine.compilation_cache(here({"JAX_COMPILATION_CACHE_DIR": "gs://a/b"})).what
    assert "is not set" in doctor_machine.compilation_cache(here()).what
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("limit", "status"), [(256, "warning"), (1024, "ok"), (-1, "ok")])
def test_open_files(monkeypatch, limit, status):
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, 4096))
    assert doctor_machine.open_files(here()).status == status


Memory = namedtuple("Memory", "total available")


@pytest.mark.parametrize(
    ("available", "group", "status", "where"),
    [
        (2**33, {}, "ok", "this machine"),
        (2**29, {}, "warning", "this machine"),
        (2**33, {"memory.max": "max"}, "ok", "this machine"),
        (2**33, {"memory.max": str(2**31), "memory.current": str(2**30 + 1)}, "warning", "this container"),
        (2**33, {"memory.max": str(2**32), "memory.current": str(2**30)}, "ok", "this container: 3.0 GiB of 4.0 GiB"),
    ],
)
def test_memory(monkeypatch, tmp_path, available, group, status, where):
    monkeypatch.setattr(doctor_machine.psutil, "virtual_memory", lambda: Memory(2**34, available))
    monkeypatch.setattr(doctor_machine, "GROUP_MEMORY", tmp_path)
    for name, text in group.items():
        (tmp_path / name).write_text(text + "\n")
    found = doctor_machine.memory(here())
    assert found.status == status
    assert found.what.startswith(where)
