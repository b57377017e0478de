"""The doctor's checks of the machine: launcher, network, memory, folders, limits."""

import shutil
import socket
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

import psutil

from shardinit.errors import LaunchError
from shardinit.launch.detect import DEFAULT_PORT, detect
from shardinit.launch.doctor_probe import Finding, Status, Surroundings
from shardinit.launch.launch_spec import LaunchSpec
from shardinit.launch.proxy import PROXIES, proxy_warning
from shardinit.wording import size_text

MIB = 2**20
DOCKER_SHARED_MEMORY = 64 * MIB
LEAST_MEMORY = 1024 * MIB  # a process of JAX and brainstate alone holds some 0.3 GiB
LEAST_FILES = 1024
SECONDS = 5.0
GROUP_MEMORY = Path("/sys/fs/cgroup")


def launcher(here: Surroundings) -> Finding:
    """Say which launcher started this process."""
    try:
        spec = detect(here.env)
    except LaunchError as error:
        return Finding(
            "launcher", "problem", str(error), "Set all of the variables, or --launcher none to ignore them."
        )
    where = f", coordinator {spec.coordinator}" if spec.coordinator else ""
    what = f"{spec.launcher}: process {spec.process_id} of {spec.processes}{where}"
    warnings = [text for text in spec.warnings if not text.startswith(PROXIES)]
    return (
        Finding("launcher", "warning", f"{what}; {' '.join(warnings)}") if warnings else Finding("launcher", "ok", what)
    )


def loopback(_: Surroundings) -> Finding:
    """Check that a TCP connection to this machine itself can be made."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=SECONDS).close()
    except OSError as error:
        fix = "Bring the loopback interface up (ip link set lo up), or let the sandbox allow sockets."
        return Finding("loopback", "problem", f"cannot connect to 127.0.0.1: {error}", fix)
    return Finding("loopback", "ok", "a TCP connection to 127.0.0.1 works")


def ports(here: Surroundings) -> Finding:
    """Check the coordinator's port and the supervisors', the next one, where they would be bound."""
    spec = _spec(here.env)
    if spec is None or spec.processes == 1:
        return Finding("ports", "ok", f"one process: none is needed (the first choice would be {DEFAULT_PORT})")
    address = spec.coordinator_address
    if spec.process_id != 0 or address is None or address.port is None:
        return Finding("ports", "ok", f"process {spec.process_id} binds none; process 0 does, at {spec.coordinator}")
    for port in (address.port, address.port + 1):
        try:
            socket.create_server(("", port)).close()
        except (OSError, OverflowError) as error:
            return Finding(
                "ports",
                "problem",
                f"cannot bind port={port}: {error}; coordinator={spec.coordinator} takes its port and the next",
                f"End what listens there (ss -ltnp 'sport = :{port}'), or --coordinator {address.host}:{port + 2}",
            )
    return Finding("ports", "ok", f"{address.port} and {address.port + 1} can be bound")


def proxy(here: Surroundings) -> Finding:
    """Check that no proxy would swallow the way to the coordinator."""
    spec = _spec(here.env)
    address = spec.coordinator_address if spec else None
    text = proxy_warning(here.env, address.host if address else "127.0.0.1")
    if text is None:
        found = [name for name in PROXIES if here.env.get(name)]
        return Finding("proxy", "ok", f"{', '.join(found)} leave the coordinator alone" if found else "not set")
    what, _, fix = text.partition(". Run ")
    return Finding("proxy", "problem" if spec and spec.processes > 1 else "warning", what, fix and f"Run {fix}")


def host_name(here: Surroundings) -> Finding:
    """Check that this host's name leads to an address that other hosts can reach."""
    name = socket.gethostname()
    addresses = _addresses(name)
    spec = _spec(here.env)
    status: Status = "warning" if spec is None or spec.is_local else "problem"
    fix = f"Other hosts need an address: put one for {name} into DNS or /etc/hosts, or give --coordinator IP:PORT."
    if addresses is None:
        return Finding("host name", status, f"{name} is not resolved (within {SECONDS:g} s)", fix)
    others = [a for a in addresses if not a.startswith("127.") and a != "::1"]
    if not others:
        return Finding(
            "host name",
            status,
            f"{name} is {', '.join(addresses)}: enough for one machine, but no other reaches it",
            fix,
        )
    return Finding("host name", "ok", f"{name} is {', '.join(others)}")


def shared_memory(here: Surroundings) -> Finding:
    """Check the size of the memory file system, which NCCL's processes share."""
    folder, has_gpu = here.shared_memory, here.backend.platform in ("gpu", "cuda", "rocm")
    status: Status = "problem" if has_gpu else "warning"
    fix = "Give the container more: docker run --shm-size=1g, or an emptyDir with medium: Memory at /dev/shm."
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return Finding("shared memory", status if has_gpu else "ok", f"there is no {folder}", fix if has_gpu else "")
    what = f"{folder}: {size_text(usage.total)}, {size_text(usage.free)} free"
    if min(usage.total, usage.free) <= DOCKER_SHARED_MEMORY:
        return Finding("shared memory", status, f"{what}: too little for NCCL between GPUs", fix)
    return Finding("shared memory", "ok", what)


def run_folder(here: Surroundings) -> Finding:
    """Check that runs can be written."""
    return _write_check("run folder", here.folder, "Give a folder that you may write: --run-folder DIR.")


def home_cache(here: Surroundings) -> Finding:
    """Check the cache folder that ``import brainstate`` makes, failing if it cannot."""
    named = here.env.get("BRAINEVENT_CACHE_DIR")
    folder = Path(named) if named else Path(here.env.get("HOME") or Path.home()) / ".cache" / "brainevent"
    fix = (
        "import brainstate fails without it: export BRAINEVENT_CACHE_DIR=/tmp/brainevent, or any folder you may write."
    )
    return _write_check("cache folder", folder, fix)


def temporary_folder(here: Surroundings) -> Finding:
    """Check the folder of temporary files."""
    named = next((here.env[name] for name in ("TMPDIR", "TEMP", "TMP") if here.env.get(name)), None)
    fix = "export TMPDIR to a folder that you may write; in a read-only container, mount a tmpfs at /tmp."
    folder = Path(named or "/tmp")
    if not folder.is_dir():
        return Finding("temporary files", "problem", f"there is no folder {folder}", fix)
    return _write_check("temporary files", folder, fix)


def compilation_cache(here: Surroundings) -> Finding:
    """Check JAX's cache of compiled programs."""
    named = here.env.get("JAX_COMPILATION_CACHE_DIR")
    if not named:
        return Finding("compilation cache", "ok", "JAX_COMPILATION_CACHE_DIR is not set: every start compiles anew")
    if "://" in named:
        return Finding("compilation cache", "ok", f"{named}, which is not on this machine and was not tried")
    return _write_check("compilation cache", Path(named), "export JAX_COMPILATION_CACHE_DIR to a folder you may write.")


def open_files(_: Surroundings) -> Finding:
    """Check the limit of open files: each connection to another process is one."""
    try:
        import resource
    except ImportError:
        return Finding("open files", "ok", "no such limit on this system")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return Finding("open files", "ok", "no limit")
    if soft < LEAST_FILES:
        most = "" if hard == resource.RLIM_INFINITY else f" (at most {hard} here)"
        return Finding("open files", "warning", f"limit={soft}, least={LEAST_FILES}", f"ulimit -n 4096{most}")
    return Finding("open files", "ok", f"limit={soft}")


def memory(_: Surroundings) -> Finding:
    """Check the memory that is left, in the container too."""
    machine = psutil.virtual_memory()
    total, available, where = machine.total, machine.available, "this machine"
    limit, used = _group_memory("memory.max"), _group_memory("memory.current")
    if limit is not None and limit < total:
        total, available, where = limit, min(available, max(limit - (used or 0), 0)), "this container"
    what = f"{where}: {size_text(available)} of {size_text(total)} available"
    if available < LEAST_MEMORY:
        fix = f"End other programs, or give it more; each process needs some {size_text(LEAST_MEMORY)} and its states."
        return Finding("memory", "warning", what, fix)
    return Finding("memory", "ok", what)


def _spec(env: Mapping[str, str]) -> LaunchSpec | None:
    try:
        return detect(env)
    except LaunchError:
        return None  # the check of the launcher says so


def _addresses(name: str) -> list[str] | None:
    """Resolve a name; None if that fails or a name server keeps silent, for which Python has no timeout."""
    found: list[list[str]] = []

    def resolve() -> None:
        try:
            found.append(sorted({str(info[4][0]) for info in socket.getaddrinfo(name, None)}))
        except OSError:
            return

    thread = threading.Thread(target=resolve, daemon=True)
    thread.start()
    thread.join(SECONDS)
    return found[0] if found else None


def _write_check(name: str, folder: Path, fix: str) -> Finding:
    """Write a file for a moment, in a folder or the nearest that is there: permission bits do not tell all."""
    try:
        there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
        with tempfile.TemporaryFile(dir=there, prefix=".shardinit-doctor-") as file:
            file.write(b"x" * 4096)
        free = size_text(shutil.disk_usage(there).free)
    except OSError as error:
        return Finding(name, "problem", f"cannot write in {folder}: {error.strerror or error}", fix)
    return Finding(name, "ok", f"{folder}{'' if there == folder else ' (to be made)'}, {free} free")


def _group_memory(name: str) -> int | None:
    try:
        text = (GROUP_MEMORY / name).read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
