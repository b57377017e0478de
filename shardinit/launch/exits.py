"""Exit codes of ``shardinit``, and what the end of a process means for the job.

| code | what | does a retry help? |
|---|---|---|
| 0 | done | |
| 2 | bad usage or bad target | no |
| 3 | planning or certificate refused | no |
| 4 | initialization failed, or output that cannot be written | no |
| 10 | a process never came | yes |
| 11 | a process died | yes |
| 12 | processes disagree | no |
| 13 | preempted: SIGTERM or SIGINT | yes |

Every process of a job exits with the code of the cause. Another code is one that the user's own code chose.
"""

import signal
from collections.abc import Iterable
from dataclasses import dataclass

DONE, USAGE, REFUSED, FAILED = 0, 2, 3, 4
NEVER_CAME, PEER_DIED, DISAGREE, PREEMPTED = 10, 11, 12, 13
RETRY_HELPS = frozenset({NEVER_CAME, PEER_DIED, PREEMPTED})

LONGEST_WORDS = 300

_CODES = {
    USAGE: "found its arguments or its target wrong",
    REFUSED: "had its plan refused",
    FAILED: "failed to initialize",
    NEVER_CAME: "waited for a peer that never came",
    PEER_DIED: "lost a peer",
    PREEMPTED: "was preempted",
}
_SIGNALS = {
    signal.SIGKILL: " (by the kernel for want of memory, by a scheduler, or by hand)",
    signal.SIGABRT: " (JAX's runtime aborts when it loses a peer)",
}


@dataclass(frozen=True, slots=True)
class End:
    """Why a job ends.

    Attributes
    ----------
    rank
        Whose end it was; None for the whole job's.
    code
        Exit code of the job.
    why
        A sentence that names who and why.
    is_consequence
        Whether it most likely followed from another rank's end, so that any other cause comes first.
    """

    rank: int | None
    code: int
    why: str
    is_consequence: bool = False


def end_of(rank: int, returncode: int, who: str, last_words: str = "") -> End | None:
    """Read the return code of a rank's process: a negative one is a signal, as is one above 128; None if it is done.

    ``who`` names the process, ``last_words`` is the last line that it wrote to standard error.
    """
    if returncode == DONE:
        return None
    number = -returncode if returncode < 0 else returncode - 128
    if number in set(signal.Signals):
        name = signal.Signals(number)
        if name in (signal.SIGTERM, signal.SIGINT):
            return End(rank, PREEMPTED, f"{who} was asked to end by {name.name}")
        why = f"{who} was ended by {name.name}, exit code {128 + number}{_SIGNALS.get(name, '')}"
        return End(rank, PEER_DIED, why, name == signal.SIGABRT)
    if returncode == DISAGREE:
        return End(None, returncode, f"the processes disagree, exit code {returncode}; each says above in what")
    if returncode == NEVER_CAME and last_words:
        return End(rank, returncode, f"{who}: {last_words[:LONGEST_WORDS]}")
    why = f"{who} {_CODES.get(returncode, 'ended by itself')}, exit code {returncode}"
    said = f": {last_words[:LONGEST_WORDS]}" if last_words else ""
    return End(rank, returncode, why + said, returncode == PEER_DIED)


def cause_of(ends: Iterable[End]) -> End:
    """Choose, of what was seen to end, what all else followed from: the first that is not a consequence."""
    found = list(ends)
    return next((end for end in found if not end.is_consequence), found[0])
