"""What a process knows of its job: how many processes, which one this is, where they meet."""

from dataclasses import dataclass

from shardinit.errors import LaunchError

LOOPBACK = ("localhost", "localhost.localdomain", "::1", "0:0:0:0:0:0:0:1")


@dataclass(frozen=True, slots=True)
class Address:
    """A host, without brackets, and a port if one was given."""

    host: str
    port: int | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only processes on the same machine can reach it."""
        return self.host.lower() in LOOPBACK or self.host.startswith("127.")


def parse_address(text: str, source: str) -> Address:
    """Read ``host``, ``host:port``, ``[v6]``, ``[v6]:port`` or a bare IPv6 address.

    Raises
    ------
    LaunchError
        If it is none of these; names ``source``.
    """
    text = text.strip()
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        has_port, port = rest.startswith(":"), rest[1:]
        fits = bool(bracket) and ":" in host and (has_port or not rest)
    elif text.count(":") > 1:
        host, has_port, port, fits = text, False, "", True
    else:
        host, colon, port = text.partition(":")
        has_port, fits = bool(colon), True
    if not fits or not host or any(c in "/[], \t\n" for c in host):
        raise LaunchError(
            f"{source}={text} is not an address. Write HOST:PORT, such as 10.0.0.1:12620 or [fd00::1]:12620."
        )
    if not has_port:
        return Address(host)
    if not (port.isascii() and port.isdigit()):
        raise LaunchError(f"{source}={text} has port={port!r}, no number. Write HOST:PORT, such as {host}:12620.")
    return Address(host, int(port))


def same_host(one: str, other: str) -> bool:
    """Whether two names may be one machine: equal, or one is the other without its domain."""
    one, other = sorted((one.lower(), other.lower()), key=len)
    return one == other or other.startswith(one + ".")


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """How many processes a job has, which one this is, where they meet, and who said so.

    Attributes
    ----------
    coordinator
        ``host:port`` of process 0; None if there is one process.
    processes
        Number of processes.
    process_id
        Number of this process, from 0.
    local_device_ids
        Positions of this process's devices among the visible ones; None is all of them.
    launcher
        Name of the launcher that numbered this process; ``none`` if none did.
    sources
        ``(field, value, source)`` of each value, such as ``("processes", "4", "SLURM_STEP_NUM_TASKS")``.
    warnings
        What is likely to go wrong, and how to fix it.
    is_local
        Whether all processes are on this machine, as far as is known.
    nodes, processes_on_node, local_rank
        Number of machines, number of processes on this one, number of this process among those; None if unknown.

    Examples
    --------
    >>> from shardinit.launch.detect import detect
    >>> spec = detect({"JAX_COORDINATOR_ADDRESS": "n1:9000", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"})
    >>> print(spec)
    process 0 of 2 (plain)
      coordinator    n1:9000  JAX_COORDINATOR_ADDRESS
      processes      2        JAX_NUM_PROCESSES
      process id     0        JAX_PROCESS_ID
      local devices  all      default
    """

    coordinator: str | None
    processes: int
    process_id: int
    local_device_ids: tuple[int, ...] | None = None
    launcher: str = "none"
    sources: tuple[tuple[str, str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    is_local: bool = True
    nodes: int | None = None
    processes_on_node: int | None = None
    local_rank: int | None = None

    @property
    def is_distributed(self) -> bool:
        """Whether there is more than one process."""
        return self.processes > 1

    @property
    def coordinator_address(self) -> Address | None:
        """The coordinator's host and port, apart."""
        return None if self.coordinator is None else parse_address(self.coordinator, "coordinator")

    @property
    def control_port(self) -> int | None:
        """Port, on the coordinator's host, on which the supervisors talk: the one after the coordinator's."""
        address = self.coordinator_address
        return None if address is None or address.port is None else address.port + 1

    def __str__(self) -> str:
        names = [field.replace("_", " ") for field, _, _ in self.sources]
        name_width = max(map(len, names), default=0)
        value_width = max((len(value) for _, value, _ in self.sources), default=0)
        lines = [f"process {self.process_id} of {self.processes} ({self.launcher})"]
        for name, (_, value, source) in zip(names, self.sources, strict=True):
            lines.append(f"  {name:<{name_width}}  {value:<{value_width}}  {source}")
        return "\n".join(lines)
