"""Environment variables as values that remember their names, and what one launcher says with them."""

import abc
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Generic, Literal, TypeVar

from shardinit.errors import LaunchError
from shardinit.launch.launch_spec import Address, parse_address

T = TypeVar("T")
PORT = "JAX_COORDINATOR_PORT"


@dataclass(frozen=True, slots=True)
class Setting(Generic[T]):
    """A value and the variable or flag that gave it."""

    value: T
    source: str

    def __str__(self) -> str:
        return f"{self.source}={self.value}"


@dataclass(frozen=True, slots=True)
class Variables:
    """A mapping of environment variables in which an empty one counts as unset."""

    env: Mapping[str, str]

    def text(self, *names: str) -> Setting[str] | None:
        """Take the first of these variables that is set."""
        for name in names:
            value = self.env.get(name, "").strip()
            if value:
                return Setting(value, name)
        return None

    def has(self, *names: str) -> bool:
        """Whether every one of these variables is set."""
        return all(self.text(name) for name in names)

    def whole(self, *names: str) -> Setting[int] | None:
        """Take the first of these variables that is set, as a whole number."""
        found = self.text(*names)
        return None if found is None else Setting(whole_number(found.value, found.source), found.source)

    def agreed(self, *names: str) -> Setting[int] | None:
        """Take the whole number that all of these variables that are set agree on."""
        found = [setting for name in names if (setting := self.whole(name))]
        for other in found[1:]:
            if other.value != found[0].value:
                raise LaunchError(
                    f"{found[0]} and {other} contradict each other. Unset one of them, such as with "
                    f"`unset {other.source}`."
                )
        return found[0] if found else None

    def address(self, *names: str) -> Setting[Address] | None:
        """Take the first of these variables that is set, as an address."""
        found = self.text(*names)
        return None if found is None else Setting(parse_address(found.value, found.source), found.source)


def whole_number(text: object, source: str) -> int:
    """Read a whole number, or say which variable holds none."""
    if isinstance(text, bool) or not re.fullmatch(r"-?\d+", str(text), re.ASCII):
        raise LaunchError(f"{source}={text} is not a whole number. Set it to one, such as {source}=4.")
    return int(str(text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one launcher says of a job; None is what it leaves open.

    Attributes
    ----------
    counts_processes
        Whether its count is one of processes: it must agree with every other. False: a count of nodes.
    states_coordinator
        Whether the coordinator was written down by somebody, rather than worked out here.
    is_weak
        Whether the platform sets its variables for every job, so that alone they mean nothing.
    port
        The port to use if the coordinator's address has none.
    this_host
        This machine's name, to be compared with the coordinator's in process 0.
    cannot_tell
        Why the count or the number of this process cannot be told; raised if nothing else gives them.
    """

    launcher: str
    coordinator: Setting[Address] | None = None
    processes: Setting[int] | None = None
    process_id: Setting[int] | None = None
    port: Setting[int] | None = None
    nodes: int | None = None
    processes_on_node: int | None = None
    local_rank: int | None = None
    counts_processes: bool = False
    states_coordinator: bool = False
    is_weak: bool = False
    this_host: str | None = None
    cannot_tell: str | None = None


class Launcher(abc.ABC):
    """One way in which processes are started and numbered.

    A ``statement`` is variables that name a coordinator, written by a user, a script or a manifest. A ``starter``
    is what starts the processes, and numbers them of its own accord.
    """

    name: ClassVar[str]
    kind: ClassVar[Literal["plain", "statement", "starter"]]
    needs: ClassVar[str]

    @abc.abstractmethod
    def is_present(self, env: Variables) -> bool:
        """Whether its variables are there."""

    @abc.abstractmethod
    def read(self, env: Variables) -> Found:
        """Say what its variables say."""
