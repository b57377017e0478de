"""Detect how many processes a job has, which one this is, and where they meet: variables in, a value out.

Rules
-----
1. Each value comes from the first that gives it: flags; JAX's plain variables; the first *statement* (xpk, MaxText,
   AXLearn, generic), which names a coordinator; the first *starter* (Open MPI, SkyPilot, SLURM, TPU, Kubernetes)
   of more than one process. So ``JAX_COORDINATOR_ADDRESS`` is completed by SLURM's count and number, and a starter
   inside another one wins.
2. A flag wins without complaint. Otherwise whoever gives the count or the number must agree with both, and so must
   whoever counts processes (not nodes), even if its values are not needed. A starter of one process contradicts
   nobody: it is a shell, in which someone starts processes by hand. A coordinator that was worked out (the first
   host of a node list) contradicts none; two that were written down must be the same host.
3. Half set is an error: a number without a count, a count above 1 without a number, several processes without a
   coordinator, a coordinator alone. A count of 1 is complete by itself.
4. Noise, on the other hand, is not an error: ``NUM_PROCESSES``, ``PROCESS_ID``, ``NNODES`` and ``NODE_RANK``, which
   many tools set, count only beside the coordinator of their family, ``COORDINATOR_ADDRESS`` only beside one of them;
   ``JAX_COORDINATOR_PORT`` and ``JAX_LOCAL_DEVICE_IDS`` say nothing of the number of processes; Kubernetes sets
   ``JOB_COMPLETION_INDEX`` for every Indexed Job, so alone it is one process, with a warning.
5. An empty variable is an unset one.
6. ``launcher`` (or ``SHARDINIT_LAUNCHER``) restricts all this to one launcher: ``none`` sees nothing but the flags;
   ``local`` sees plain variables, and takes all processes to be on this machine. ``JAX_COORDINATOR_PORT`` and
   ``JAX_LOCAL_DEVICE_IDS`` hold under every launcher but ``none``.
7. The port comes from the address, else from ``JAX_COORDINATOR_PORT`` (``COORDINATOR_PORT`` for the generic names),
   else from the scheduler's job number, else it is 12620. The port after it must be free too: supervisors use it.
8. Local devices: as asked, else ``JAX_LOCAL_DEVICE_IDS``, else all, except that processes which share the GPUs of a
   node get an equal run of them each, by local rank; if that does not divide, it is an error.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shardinit.errors import LaunchError
from shardinit.launch.devices import LocalDevices, choose_local_devices
from shardinit.launch.environments import BY_NAME, LAUNCHERS
from shardinit.launch.launch_spec import Address, LaunchSpec, parse_address, same_host
from shardinit.launch.proxy import proxy_warning
from shardinit.launch.variables import PORT, Found, Setting, Variables, whole_number

DEFAULT_PORT = 12620
LAST_PORT = 65534
NAMES = (*BY_NAME, "none")
FLAGS = "flags"


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The count and the number of this process, and who gave each."""

    processes: Setting[int]
    process_id: Setting[int]
    counted_by: str
    numbered_by: str


def detect(
    env: Mapping[str, str],
    *,
    coordinator: str | None = None,
    processes: int | None = None,
    process_id: int | None = None,
    local_devices: str | None = None,
    launcher: str | None = None,
) -> LaunchSpec:
    """Detect the processes of this job from environment variables. It reads nothing else, and changes nothing.

    Parameters
    ----------
    env
        Environment variables, such as ``os.environ``.
    coordinator
        ``HOST:PORT`` of process 0. Without a port, one is added.
    processes
        Number of processes.
    process_id
        Number of this process, from 0.
    local_devices
        ``auto`` (the default), ``all``, or positions among the visible devices, such as ``0,1``.
    launcher
        Look at this launcher only; ``none``: at no variables at all. Default: the variable ``SHARDINIT_LAUNCHER``.

    Raises
    ------
    LaunchError
        If variables are half set, contradict each other or cannot be read; names them.

    Examples
    --------
    >>> from shardinit.launch.detect import detect
    >>> detect({}).processes
    1
    >>> spec = detect({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}, coordinator="n1:9000")
    >>> spec.process_id, spec.coordinator, spec.launcher
    (1, 'n1:9000', 'openmpi')
    """
    asked = _launcher_name(Variables(env), launcher)
    variables = Variables({} if asked and asked.value == "none" else env)
    layers = [_flags(coordinator, processes, process_id), *_layers(variables, asked)]
    chosen = _choose(layers)
    if chosen is not None:
        _check_agreement(layers, chosen)
        _check_range(chosen)
    if chosen is None or chosen.processes.value == 1:
        return _one_process(variables, layers, local_devices, asked, chosen)
    meeting = _meeting(layers, chosen, variables.whole(PORT))
    return _several(variables, layers, chosen, meeting, local_devices, proxy_warning(env, meeting.value.host))


def _launcher_name(variables: Variables, launcher: str | None) -> Setting[str] | None:
    asked = Setting(launcher, "--launcher") if launcher else variables.text("SHARDINIT_LAUNCHER")
    if asked and asked.value not in NAMES:
        raise LaunchError(f"{asked} is not a launcher. Use one of {', '.join(NAMES)}.")
    return asked


def _flags(coordinator: str | None, processes: int | None, process_id: int | None) -> Found:
    count = None if processes is None else Setting(whole_number(processes, "--processes"), "--processes")
    rank = None if process_id is None else Setting(whole_number(process_id, "--process-id"), "--process-id")
    if count and count.value == 1 and rank is None:
        rank = Setting(0, count.source)
    address = None if coordinator is None else parse_address(coordinator, "--coordinator")
    return Found(
        launcher=FLAGS,
        coordinator=Setting(address, "--coordinator") if address else None,
        processes=count,
        process_id=rank,
    )


def _layers(variables: Variables, asked: Setting[str] | None) -> list[Found]:
    """Read what there is: of each kind the first that is of more than one process."""
    if asked and asked.value != "none":
        launcher = BY_NAME[asked.value]
        if not launcher.is_present(variables) and launcher.name != "local":
            raise LaunchError(
                f"{asked} was asked for, but its variables are not set. It needs {launcher.needs}. Set them, or leave "
                f"{asked.source} away."
            )
        return [launcher.read(variables)]
    there = [launcher for launcher in LAUNCHERS if launcher.is_present(variables)]
    found: list[Found] = []
    for kind in ("plain", "statement", "starter"):
        said = [launcher.read(variables) for launcher in there if launcher.kind == kind]
        several = [f for f in said if not (f.processes and f.processes.value == 1)]
        found += (several or said)[:1]
    return found


def _choose(layers: Sequence[Found]) -> _Chosen | None:
    """Take the count and the number from the first that gives each; None if nobody says anything."""
    count = next(((f.processes, f.launcher) for f in layers if f.processes), None)
    rank = next(((f.process_id, f.launcher) for f in layers if f.process_id), None)
    if not any(f.coordinator or f.processes or f.process_id or f.cannot_tell for f in layers if not f.is_weak):
        return None
    if count and count[0].value < 1:
        raise LaunchError(f"{count[0]}: a job has at least 1 process. Set {count[0].source}=1 or more.")
    if count and count[0].value == 1 and rank is None:
        rank = Setting(0, count[0].source), count[1]
    if count is None or rank is None:
        raise LaunchError(next((f.cannot_tell for f in layers if f.cannot_tell), None) or _half_set(layers))
    return _Chosen(count[0], rank[0], count[1], rank[1])


def _check_range(chosen: _Chosen) -> None:
    count, rank = chosen.processes, chosen.process_id
    if not 0 <= rank.value < count.value:
        raise LaunchError(
            f"{rank} is outside of 0 to {count.value - 1}, the numbers of the processes by {count}. Number them from "
            f"0: set {rank.source} to one of these, or {count.source} to the right count."
        )


def _half_set(layers: Sequence[Found]) -> str:
    """Say what is there, what is missing, and how to set it."""
    there = [str(s) for f in layers for s in (f.coordinator, f.processes, f.process_id) if s]
    count = next((f.processes.value for f in layers if f.processes), None)
    fixes = {
        "the number of processes": None if count else ("JAX_NUM_PROCESSES=4", "--processes"),
        "the process id": None
        if any(f.process_id for f in layers)
        else (f"JAX_PROCESS_ID=0 (0 to {(count or 4) - 1}, another in each process)", "--process-id"),
        "the coordinator": None
        if any(f.coordinator for f in layers)
        else (f"JAX_COORDINATOR_ADDRESS=HOST:{DEFAULT_PORT} (HOST is where process 0 runs)", "--coordinator"),
    }
    missing = {what: fix for what, fix in fixes.items() if fix}
    variables, flags = (" and ".join(fix[i] for fix in missing.values()) for i in (0, 1))
    return (
        f"the processes of this job are half set. Set: {', '.join(there)}. Missing: {' and '.join(missing)}. "
        f"Set {variables}, or pass {flags}; --launcher none runs this process alone."
    )


def _check_agreement(layers: Sequence[Found], chosen: _Chosen) -> None:
    """Refuse another count or number from whoever gave one of them, or counts processes."""
    for found in layers[1:]:
        gives = found.launcher in (chosen.counted_by, chosen.numbered_by)
        counts_several = found.counts_processes and (found.processes is None or found.processes.value != 1)
        if not (gives or counts_several):
            continue
        _agree(found.processes, chosen.processes, chosen.counted_by)
        _agree(found.process_id, chosen.process_id, chosen.numbered_by)
        stated = next((f.coordinator for f in layers if f.coordinator), None)
        if found.states_coordinator and found.coordinator and stated and stated.source != "--coordinator":
            _agree_on_host(stated, found.coordinator)


def _agree(one: Setting[int] | None, chosen: Setting[int], chosen_by: str) -> None:
    if one and chosen_by != FLAGS and one.value != chosen.value:
        raise LaunchError(
            f"{chosen} and {one} contradict each other. Unset the wrong one, or name the launcher that is right, such "
            "as with --launcher plain for JAX's own variables (SHARDINIT_LAUNCHER=plain)."
        )


def _agree_on_host(one: Setting[Address], other: Setting[Address]) -> None:
    """Compare two names, or two numbers; a name and a number may be the same machine."""
    hosts = one.value.host, other.value.host
    both_numbers = len({host.replace(".", "").isdigit() or ":" in host for host in hosts}) == 1
    if both_numbers and not same_host(*hosts):
        raise LaunchError(f"{one} and {other} contradict each other. Unset the wrong one.")


def _meeting(layers: Sequence[Found], chosen: _Chosen, general_port: Setting[int] | None) -> Setting[Address]:
    """Complete the coordinator's address, and say who gave its parts."""
    found = next((f for f in layers if f.coordinator), None)
    if found is None or found.coordinator is None:
        raise LaunchError(_half_set(layers))
    address, source = found.coordinator.value, found.coordinator.source
    if chosen.process_id.value == 0 and found.this_host and not same_host(address.host, found.this_host):
        raise LaunchError(
            f"process 0 runs on {found.this_host}, but {source} makes {address.host} the coordinator. Pass "
            f"--coordinator {found.this_host}:{DEFAULT_PORT} to every process."
        )
    port = next((f.port for f in (found, *layers) if f.port), general_port)
    if address.port is None:
        port = port or Setting(DEFAULT_PORT, "default")
        address, source = Address(address.host, port.value), f"{source}, port: {port.source}"
    elif found.states_coordinator and found.port and found.port.value != address.port:
        raise LaunchError(f"{found.coordinator} and {found.port} contradict each other. Unset {found.port.source}.")
    if not 1 <= (address.port or 0) <= LAST_PORT:
        raise LaunchError(
            f"the coordinator's port={address.port} ({source}) is outside of 1 to {LAST_PORT}; the one after it is "
            f"used as well. Use one such as {DEFAULT_PORT}."
        )
    return Setting(address, source)


def _several(
    variables: Variables,
    layers: Sequence[Found],
    chosen: _Chosen,
    meeting: Setting[Address],
    local_devices: str | None,
    warning: str | None,
) -> LaunchSpec:
    count, rank = chosen.processes.value, chosen.process_id.value
    place = _place(layers, chosen, meeting.value)
    devices = choose_local_devices(
        variables.env, local_devices, place.launcher, place.processes_on_node, place.local_rank
    )
    return LaunchSpec(
        coordinator=str(meeting.value),
        processes=count,
        process_id=rank,
        local_device_ids=devices.ids,
        launcher=chosen.numbered_by,
        sources=(
            ("coordinator", str(meeting.value), meeting.source),
            ("processes", str(count), chosen.processes.source),
            ("process_id", str(rank), chosen.process_id.source),
            _device_source(devices),
        ),
        warnings=tuple(text for text in (devices.warning, warning) if text),
        is_local=place.nodes == 1,
        nodes=place.nodes,
        processes_on_node=place.processes_on_node,
        local_rank=place.local_rank,
    )


def _place(layers: Sequence[Found], chosen: _Chosen, meeting: Address) -> Found:
    """Say where this process runs: by a launcher that agrees on the job, or by a coordinator that is this machine."""
    count, rank = chosen.processes.value, chosen.process_id.value
    for found in layers:
        counts = found.processes.value == count if found.processes else found.launcher == chosen.numbered_by
        numbers = found.process_id is not None and found.process_id.value == rank
        if found.processes_on_node is not None and counts and numbers:
            return found
    if meeting.is_loopback:
        return Found(launcher=chosen.numbered_by, nodes=1, processes_on_node=count, local_rank=rank)
    return Found(launcher=chosen.numbered_by)


def _one_process(
    variables: Variables,
    layers: Sequence[Found],
    local_devices: str | None,
    asked: Setting[str] | None,
    chosen: _Chosen | None,
) -> LaunchSpec:
    devices = choose_local_devices(variables.env, local_devices, "none", 1, 0)
    pods = next((f.process_id for f in layers if f.is_weak and f.process_id), None)
    warning = (
        f"{pods} says that this is a pod of an Indexed Job, but nothing says that its pods belong together: this one "
        "runs alone. To join them, set JAX_COORDINATOR_ADDRESS and JAX_NUM_PROCESSES in the manifest."
    )
    nobody = str(asked) if asked else "default: no launcher"
    return LaunchSpec(
        coordinator=None,
        processes=1,
        process_id=0,
        local_device_ids=devices.ids,
        launcher=chosen.numbered_by if chosen else "none",
        sources=(
            ("processes", "1", chosen.processes.source if chosen else nobody),
            ("process_id", "0", chosen.process_id.source if chosen else nobody),
            _device_source(devices),
        ),
        warnings=(warning,) if pods and chosen is None else (),
        nodes=1,
        processes_on_node=1,
        local_rank=0,
    )


def _device_source(devices: LocalDevices) -> tuple[str, str, str]:
    text = "all" if devices.ids is None else ",".join(map(str, devices.ids))
    return "local_devices", text, devices.source
