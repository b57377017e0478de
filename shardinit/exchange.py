"""Texts between processes, through the key-value store of JAX's coordination service: no collective.

A collective needs every process to run the same program, which is what must be found out first.
"""

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax

from shardinit.errors import ArgumentError, DisagreementError, JoinError
from shardinit.private_jax import distributed_state
from shardinit.wording import ranks_text

PEER_SECONDS = 300.0
LONGEST_VALUE = 200

_rounds: Counter[Any] = Counter()


def processes_of(devices: Iterable[Any]) -> tuple[int, ...]:
    """Ranks of the processes that own these devices, ascending."""
    return tuple(sorted({device.process_index for device in devices}))


def is_shared(ranks: Sequence[int]) -> bool:
    """Whether this process has peers among these ranks."""
    return len(ranks) > 1 and distributed_state.client is not None


def exchange(name: str, text: str, ranks: Sequence[int], seconds: float | None = None) -> list[str]:
    """Give a text of every process to every process.

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
        If some rank does not send its text in time; it names all that did not.
    """
    seconds = _peer_seconds() if seconds is None else seconds
    _rounds[name, tuple(ranks)] += 1
    place = f"shardinit/{name}/{'-'.join(map(str, ranks))}/{_rounds[name, tuple(ranks)]}"
    place = hashlib.sha256(place.encode()).hexdigest()[:24] + f"/{name}"
    client: Any = distributed_state.client
    client.key_value_set(f"{place}/{jax.process_index()}", text)
    deadline = time.monotonic() + seconds
    texts, missing = [], []
    for rank in ranks:
        left = max(int(1000 * (deadline - time.monotonic())), 1)
        try:
            texts.append(client.blocking_key_value_get(f"{place}/{rank}", left))
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise JoinError(f"rank 0, which keeps the processes' texts, is lost: {error}") from error
            missing.append(rank)
    if missing:
        raise JoinError(
            f"{ranks_text(missing)} of {len(ranks)} did not send {name!r} within {seconds:g} s. Look at the end of "
            "that process's log; if it is only slow, raise the deadline by SHARDINIT_PEER_TIMEOUT (seconds)."
        )
    return texts


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
        holders: dict[str, list[int]] = {}
        for rank, fields in found.items():
            if field in fields:
                holders.setdefault(fields[field], []).append(rank)
        if len(holders) > 1:
            values = "; ".join(f"{_shortened(value)} on {ranks_text(ranks)}" for value, ranks in holders.items())
            lines.append(f"  {field}: {values}")
    if not lines:
        return ""
    return (
        f"the {len(found)} processes would not make the same thing, so none goes on:\n"
        + "\n".join(lines)
        + "\nStart every process with the same command, environment, packages and code, and seed it alike: "
        "--seed 0, or brainstate.random.seed(0) in your own script."
    )


def _peer_seconds() -> float:
    text = os.environ.get("SHARDINIT_PEER_TIMEOUT", str(PEER_SECONDS))
    try:
        return float(text)
    except ValueError:
        raise ArgumentError(f"SHARDINIT_PEER_TIMEOUT={text!r} is no number of seconds. Use one, such as 300.") from None


def _shortened(value: str) -> str:
    return value if len(value) <= LONGEST_VALUE else f"{value[:LONGEST_VALUE]}..."
