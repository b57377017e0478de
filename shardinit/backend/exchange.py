"""Texts between processes, through the key-value store of JAX's coordination service: no collective.

A collective needs every process to run the same program, which is what must be found out first.
"""

import contextlib
import hashlib
import json
import os
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from shardinit.backend.private_jax import distributed_state
from shardinit.errors import ArgumentError, DisagreementError, JoinError
from shardinit.wording import ranks_text

PEER_SECONDS = 300.0
LONGEST_VALUE = 200
ANSWER_SECONDS = 5.0

_locks: dict[tuple[int, ...], threading.Lock] = {}


def processes_of(devices: Iterable[Any]) -> tuple[int, ...]:
    """Ranks of the processes that own these devices, ascending."""
    return tuple(sorted({device.process_index for device in devices}))


def is_shared(ranks: Sequence[int]) -> bool:
    """Whether this process has peers among these ranks."""
    return len(ranks) > 1 and distributed_state.client is not None


def exchange(name: str, text: str, ranks: Sequence[int], seconds: float | None = None) -> list[str]:
    """Give a text of every process to every process.

    Nothing is left of a call that failed: a process that tries again meets the others where they are now, never what
    was sent before.

    Parameters
    ----------
    name
        What the text is, for the error. Every process calls with the same names in the same order.
    text
        This process's text, at most a few KiB.
    ranks
        The processes that take part, this one among them.
    seconds
        Deadline; None takes the environment variable ``SHARDINIT_PEER_TIMEOUT``, or 300 s.

    Returns
    -------
    list[str]
        One text per rank, in the order of ``ranks``.

    Raises
    ------
    JoinError
        If some rank does not send its text in time; it names who did not.
    DisagreementError
        If some rank sends another text than this one, as one does that failed and starts again alone.
    """
    seconds = _peer_seconds() if seconds is None else seconds
    with _locks.setdefault(tuple(ranks), threading.Lock()):
        found = _Round(name, ranks, seconds).offers(text)
    if len({offer.name for offer in found}) > 1:
        names = _holders_text({rank: offer.name for rank, offer in zip(ranks, found, strict=True)})
        raise DisagreementError(
            f"the {len(ranks)} processes do not wait for the same thing: {names}. One failed and started again alone, "
            "or runs other code. Nothing was exchanged: start again in all of them."
        )
    return [offer.text for offer in found]


class _Offer(NamedTuple):
    """What a process waits with: a number of this call alone, what it sends, and the text."""

    nonce: str
    name: str
    text: str


class _Round:
    """One call of ``exchange``, as one process sees it.

    Every process offers its text under its rank and withdraws it if it fails. The first rank takes all offers and
    answers each nonce, so an answer can reach no other call than the one it is for. It deletes what the round before
    left: whoever offers again has read that.
    """

    def __init__(self, name: str, ranks: Sequence[int], seconds: float) -> None:
        self.client: Any = distributed_state.client
        self.name, self.ranks, self.seconds = name, ranks, seconds
        self.deadline = time.monotonic() + seconds
        self.place = f"shardinit/{hashlib.sha256(repr(tuple(ranks)).encode()).hexdigest()[:24]}"
        self.own = f"{self.place}/offers/{jax.process_index()}"

    def offers(self, text: str) -> list[_Offer]:
        """Offer a text, and return what each rank offered to this round."""
        own = _Offer(secrets.token_hex(8), self.name, text)
        with _store():
            try:
                self.client.key_value_set(self.own, json.dumps(own), allow_overwrite=True)
                found = self._answer(own) if jax.process_index() == self.ranks[0] else self._ask(own)
            finally:
                with contextlib.suppress(jax.errors.JaxRuntimeError):
                    self.client.key_value_delete(self.own)
        if missing := [rank for rank, offer in zip(self.ranks, found, strict=True) if offer is None]:
            raise self._not_there(missing)
        return [_Offer(*offer) for offer in found if offer is not None]

    def _answer(self, own: _Offer) -> list[list[str] | None]:
        """Take the offers of all, None for one that did not come, and answer those that are there."""
        texts = [self._wait(f"{self.place}/offers/{rank}") for rank in self.ranks]
        offers = [None if text is None else json.loads(text) for text in texts]
        self.client.key_value_delete(self.place)
        self.client.key_value_set(f"{self.place}/results/{own.nonce}", json.dumps(offers))
        for offer in offers:
            if offer and offer[0] != own.nonce:
                self.client.key_value_set(f"{self.place}/answers/{offer[0]}", own.nonce)
        return offers

    def _ask(self, own: _Offer) -> list[list[str] | None]:
        """Wait for the first rank's answer."""
        key = f"{self.place}/answers/{own.nonce}"
        answer = self._wait(key)
        standing = set() if answer else self._standing()
        if not answer and jax.process_index() not in standing:  # taken just now: the answer is on its way
            self.deadline += ANSWER_SECONDS
            answer = self._wait(key)
        result = answer and self._wait(f"{self.place}/results/{answer}")
        if result:
            return json.loads(result)
        first = self.ranks[0]  # without it the others give up as well, so only it is missing for sure
        raise self._not_there((first in standing and sorted(set(self.ranks) - standing)) or [first])

    def _not_there(self, missing: Sequence[int]) -> JoinError:
        return JoinError(
            f"{ranks_text(missing)} of {len(self.ranks)} did not send {self.name!r} within {self.seconds:g} s. Look at "
            "the end of that process's log; if it is only slow, raise the deadline by SHARDINIT_PEER_TIMEOUT (seconds)."
        )

    def _standing(self) -> set[int]:
        """Ranks whose offers wait for an answer."""
        found = self.client.key_value_dir_get(f"{self.place}/offers")
        return {int(key.rsplit("/", 1)[-1]) for key, _ in found}

    def _wait(self, key: str) -> str | None:
        """Return the value of a key, or None if it is not there before the deadline."""
        left = max(int(1000 * (self.deadline - time.monotonic())), 1)
        try:
            return self.client.blocking_key_value_get(key, left)
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
            return None


@contextlib.contextmanager
def _store() -> Iterator[None]:
    """Name who keeps the texts where they cannot be read or written."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        raise JoinError(f"rank 0, which keeps the processes' texts, is lost: {error}") from error


def agree(name: str, fields: Mapping[str, str], ranks: Sequence[int]) -> None:
    """Stop every process alike if some field differs between processes that have it.

    Raises
    ------
    DisagreementError
        The same message in every process: which field, and which ranks have which value.
    JoinError
        If a rank does not take part in time.
    """
    if not is_shared(ranks):
        return
    whole = json.dumps(dict(fields), sort_keys=True)
    digests = exchange(name, hashlib.sha256(whole.encode()).hexdigest(), ranks)
    if len(set(digests)) == 1:
        return
    found = [json.loads(text) for text in exchange(f"{name} in full", whole, ranks)]
    difference = difference_text(dict(zip(ranks, found, strict=True)))
    if difference:
        raise DisagreementError(difference)


def difference_text(found: Mapping[int, Mapping[str, str]]) -> str:
    """Say which field differs between ranks that have it, and which have which value; empty if none does."""
    lines = []
    for field in sorted({field for fields in found.values() for field in fields}):
        values = {rank: fields[field] for rank, fields in found.items() if field in fields}
        if len(set(values.values())) > 1:
            lines.append(f"  {field}: {_holders_text(values)}")
    if not lines:
        return ""
    return (
        f"the {len(found)} processes would not make the same thing, so none goes on:\n"
        + "\n".join(lines)
        + "\nStart every process with the same command, environment, packages and code, and seed it alike: "
        "--seed 0, or brainstate.random.seed(0) in your own script."
    )


def _holders_text(values: Mapping[int, str]) -> str:
    """Say which ranks have which value."""
    holders: dict[str, list[int]] = {}
    for rank, value in values.items():
        holders.setdefault(value, []).append(rank)
    return "; ".join(f"{_shortened(value)} on {ranks_text(ranks)}" for value, ranks in holders.items())


def _peer_seconds() -> float:
    text = os.environ.get("SHARDINIT_PEER_TIMEOUT", str(PEER_SECONDS))
    try:
        return float(text)
    except ValueError:
        raise ArgumentError(
            f"SHARDINIT_PEER_TIMEOUT={text!r} is not a number of seconds. Use one, such as 300."
        ) from None


def _shortened(value: str) -> str:
    return value if len(value) <= LONGEST_VALUE else f"{value[:LONGEST_VALUE]}..."
