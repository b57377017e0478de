"""The control channel: the supervisors of a job's ranks tell each other who came, who ended and why.

Rank 0's supervisor listens, at the coordinator's port + 1; every other one holds a connection to it. A message
is one line of JSON. A connection that closes, or from which nothing comes for ``SILENCE_SECONDS``, is a rank lost.
"""

import abc
import asyncio
import contextlib
import hmac
import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from shardinit.launch.exits import DISAGREE, NEVER_CAME, PEER_DIED, USAGE, End
from shardinit.launch.launch_spec import Address
from shardinit.wording import ranks_text

PING_SECONDS = 2.0
SILENCE_SECONDS = 10.0
RETRY_SECONDS = 0.25
LONGEST_LINE = 16 * 1024
VERDICT_SECONDS = 4.0  # that rank 0 has for what only it can know


def job_secret(env: Mapping[str, str]) -> str:
    """Secret of a job: ``SHARDINIT_JOB_SECRET``, else what its ranks know of it: the scheduler's id of the job.

    The id is not secret to others on the cluster: it keeps jobs apart that meet on one port, and port scanners out.
    """
    names = ("SHARDINIT_JOB_SECRET", "SLURM_JOB_ID", "PMIX_NAMESPACE", "JOB_NAME", "SKYPILOT_TASK_ID")
    return next((env[name] for name in names if env.get(name)), "")


def proof(secret: str, hello: Mapping[str, Any]) -> str:
    """Show that one knows the secret, without telling it."""
    text = json.dumps([hello[name] for name in ("rank", "processes", "host", "pid")])
    return hmac.new(secret.encode(), text.encode(), "sha256").hexdigest()


@dataclass(slots=True, eq=False)
class Channel(abc.ABC):
    """What both ends of the control channel know.

    Attributes
    ----------
    rank, processes, host, port
        This rank, how many there are, and where rank 0's supervisor listens.
    everyone_came
        Whether every rank's supervisor is connected.
    everyone_done
        Whether every rank ended well.
    ends
        What others told of ends; at rank 0 the reports of all, elsewhere the verdict of rank 0.
    """

    rank: int
    processes: int
    host: str
    port: int
    everyone_came: bool = False
    everyone_done: bool = False
    ends: list[End] = field(default_factory=list)
    tasks: set[asyncio.Task] = field(default_factory=set)
    secret: str = field(default_factory=lambda: job_secret(os.environ), repr=False)

    @abc.abstractmethod
    async def open(self) -> None:
        """Begin to talk."""

    @abc.abstractmethod
    def report_done(self) -> None:
        """Say that this rank ended well."""

    def spawn(self, coroutine: Any) -> None:
        """Run something until ``close``."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    @property
    def patience(self) -> float:
        """Seconds after a deadline that are left to rank 0, which can say who is missing."""
        return 0.0

    def hello(self) -> dict[str, Any]:
        """Say who this is."""
        who = {"rank": self.rank, "processes": self.processes, "host": socket.gethostname(), "pid": os.getpid()}
        return {**who, "proof": proof(self.secret, who)}

    async def close(self) -> None:
        """End every task and connection."""
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@dataclass(slots=True, eq=False)
class _Peer:
    hello: dict[str, Any]
    writer: asyncio.StreamWriter
    done: bool = False

    @property
    def who(self) -> str:
        return f"rank {self.hello['rank']} (host {self.hello['host']})"


@dataclass(slots=True, eq=False)
class Hub(Channel):
    """Rank 0's end: knows everyone, and gives the verdict."""

    peers: dict[int, _Peer] = field(default_factory=dict)
    server: asyncio.Server | None = None
    own_done: bool = False

    async def open(self) -> None:
        """Listen: on loopback alone where the coordinator is there, so that no other machine can reach it.

        Raises
        ------
        OSError
            If the port is in use.
        """
        host = self.host if Address(self.host).is_loopback else None
        self.server = await asyncio.start_server(self._serve, host, self.port, limit=LONGEST_LINE)
        self.spawn(_every(PING_SECONDS, lambda: self._tell_all({"ping": True})))
        self._see_who_is_here()

    def missing(self) -> list[int]:
        """Ranks whose supervisors have not come."""
        return [rank for rank in range(1, self.processes) if rank not in self.peers]

    def report_done(self) -> None:
        """Say that this rank ended well."""
        self.own_done = True
        self._see_who_is_done()

    def unfinished(self) -> list[int]:
        """Ranks that are here and have not ended well."""
        return [rank for rank, peer in self.peers.items() if not peer.done]

    async def give_verdict(self, end: End) -> None:
        """Tell everyone why the job ends."""
        self._tell_all({"end": asdict(end)})
        for peer in self.peers.values():
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                await asyncio.wait_for(peer.writer.drain(), 1.0)

    async def close(self) -> None:
        """Stop listening, and close every connection."""
        if self.server is not None:
            self.server.close()
        for peer in self.peers.values():
            peer.writer.close()
        await Channel.close(self)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            message = await _read(reader)
        except (TimeoutError, OSError, ValueError, RecursionError):  # half a line, or bytes that are not JSON
            message = None
        hello = message.get("hello") if isinstance(message, dict) else None
        if hello is None or not self._is_of_this_job(hello):  # a port scanner, a health check, a rank of another job
            writer.close()
            return
        peer = _Peer(hello, writer)
        if (end := self._refusal(peer)) is not None:
            self.ends.append(end)
            writer.write(_line({"end": asdict(end)}))
            writer.close()
            return
        self.peers[hello["rank"]] = peer
        self._see_who_is_here()
        try:
            while message := await _read(reader):
                if "end" in message:
                    self.ends.append(End(**message["end"]))
                elif "done" in message:
                    peer.done = True
                    self._see_who_is_done()
            why = "is gone: its supervisor closed the connection without a word, as when it is killed"
        except (TimeoutError, OSError, ValueError, TypeError):
            why = f"is lost: nothing came from its supervisor for {SILENCE_SECONDS:g} s (stopped, or no network)"
        if not peer.done:
            self.ends.append(End(hello["rank"], PEER_DIED, f"{peer.who} {why}"))

    def _is_of_this_job(self, hello: Any) -> bool:
        own = self.hello()
        if not isinstance(hello, dict) or hello.keys() != own.keys():
            return False
        if any(type(hello[name]) is not type(own[name]) for name in own):
            return False
        return hmac.compare_digest(hello["proof"].encode(errors="surrogatepass"), proof(self.secret, hello).encode())

    def _refusal(self, peer: _Peer) -> End | None:
        rank, count = peer.hello["rank"], peer.hello["processes"]
        if count != self.processes:
            why = f"{peer.who} was started for processes={count}, rank 0 for processes={self.processes}"
            return End(rank, DISAGREE, f"{why}. Start all with the same number")
        if rank in self.peers or rank == 0:
            other = self.peers[rank].hello["host"] if rank else socket.gethostname()
            why = f"rank {rank} came twice, from the hosts {other} and {peer.hello['host']}"
            return End(rank, USAGE, f"{why}. Give every process its own process id")
        return None

    def _see_who_is_here(self) -> None:
        if not self.missing():
            self.everyone_came = True
            self._tell_all({"everyone": "came"})

    def _see_who_is_done(self) -> None:
        if self.own_done and not self.missing() and all(peer.done for peer in self.peers.values()):
            self.everyone_done = True
            self._tell_all({"everyone": "done"})

    def _tell_all(self, message: dict[str, Any]) -> None:
        for peer in self.peers.values():
            with contextlib.suppress(OSError):
                peer.writer.write(_line(message))


@dataclass(slots=True, eq=False)
class Spoke(Channel):
    """Any other rank's end."""

    writer: asyncio.StreamWriter | None = None
    trouble: str = "not tried yet"
    unsent: list[End] = field(default_factory=list)

    async def open(self) -> None:
        """Start to connect, again and again until ``close``."""
        self.spawn(self._connect())

    @property
    def patience(self) -> float:
        """Seconds after a deadline that are left to rank 0, once it is reached."""
        return 0.0 if self.writer is None else VERDICT_SECONDS

    def report(self, end: End) -> None:
        """Tell rank 0 of an end."""
        if self.writer is None:
            self.unsent.append(end)
        self._tell({"end": asdict(end)})

    def report_done(self) -> None:
        """Say that this rank ended well."""
        self._tell({"done": True})

    async def close(self) -> None:
        """Close the connection."""
        if self.writer is not None:
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                await asyncio.wait_for(self.writer.drain(), 1.0)
            self.writer.close()
        await Channel.close(self)

    async def _connect(self) -> None:
        while True:
            try:
                connecting = asyncio.open_connection(self.host, self.port)
                reader, self.writer = await asyncio.wait_for(connecting, SILENCE_SECONDS)
                break
            except (TimeoutError, OSError) as error:
                self.trouble = str(error) or type(error).__name__
                await asyncio.sleep(RETRY_SECONDS)
        self._tell({"hello": self.hello()})
        for end in self.unsent:
            self._tell({"end": asdict(end)})
        self.spawn(_every(PING_SECONDS, lambda: self._tell({"ping": True})))
        try:
            while message := await _read(reader):
                if "end" in message:
                    self.ends.append(End(**message["end"]))
                self.everyone_came |= "everyone" in message
                self.everyone_done |= message.get("everyone") == "done"
            why = "is gone: its supervisor closed the connection without a word, as when it is killed"
            if not self.everyone_came:
                why += ", or when this rank has another SHARDINIT_JOB_SECRET or is of another job"
        except (TimeoutError, OSError, ValueError, TypeError):
            why = f"is lost: nothing came from its supervisor for {SILENCE_SECONDS:g} s (stopped, or no network)"
        if not self.ends and not self.everyone_done:
            self.ends.append(End(0, PEER_DIED, f"rank 0 (coordinator {self.host}) {why}"))

    def _tell(self, message: dict[str, Any]) -> None:
        if self.writer is not None:
            with contextlib.suppress(OSError):
                self.writer.write(_line(message))


async def meet(rank: int, processes: int, coordinator: str, seconds: float) -> End | None:
    """Wait until a supervisor, or the process itself, of every rank is there; say who is not.

    Returns None if everyone came in time.
    """
    host, _, port = coordinator.rpartition(":")
    made = (Hub if rank == 0 else Spoke)(rank, processes, host.strip("[]"), int(port) + 1)
    try:
        await made.open()
    except OSError as error:
        return cannot_listen(made.port, error)
    began = time.monotonic()
    try:
        while time.monotonic() - began < seconds + made.patience and not made.everyone_came and not made.ends:
            await asyncio.sleep(0.02)
        if made.everyone_came:
            return None
        end = made.ends[0] if made.ends else not_here(made, seconds)
        if isinstance(made, Hub):
            await made.give_verdict(end)
        return end
    finally:
        await made.close()


def not_here(channel: Channel, seconds: float) -> End:
    """Say who did not come within the deadline."""
    if isinstance(channel, Hub):
        missing = channel.missing()
        why = f"{ranks_text(missing)} of {channel.processes} never came (waited {seconds:g} s)"
        return End(missing[0], NEVER_CAME, f"{why}. See whether they were started, and can reach this host")
    trouble = channel.trouble if isinstance(channel, Spoke) else ""
    where = f"{channel.host}:{channel.port}"
    if isinstance(channel, Spoke) and channel.writer is not None:
        return End(None, NEVER_CAME, f"rank 0 at {where} was reached, but not all ranks came within {seconds:g} s")
    why = f"rank 0 never came: its control channel at {where} was not reached within {seconds:g} s ({trouble})"
    return End(0, NEVER_CAME, f"{why}. See whether rank 0 runs there, and that the coordinator's port + 1 is open")


def cannot_listen(port: int, error: OSError) -> End:
    """Say that rank 0 cannot listen on its port."""
    why = f"rank 0 cannot listen on port {port}: {error.strerror or error}"
    return End(0, NEVER_CAME, f"{why}. Another program may use it: choose another coordinator port")


async def _read(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    line = await asyncio.wait_for(reader.readline(), SILENCE_SECONDS)
    return json.loads(line) if line else None


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


async def _every(seconds: float, action: Any) -> None:
    while True:
        action()
        await asyncio.sleep(seconds)
