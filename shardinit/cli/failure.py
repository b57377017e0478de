"""How a command fails: one message, the user's part of a traceback, an exit code."""

import sys
import traceback
from typing import NoReturn

import typer

from shardinit.backend.rank import Rank
from shardinit.errors import DisagreementError, JoinError, ShardInitError
from shardinit.launch.exits import DISAGREE, NEVER_CAME

RANK: Rank | None = None  # this process, once it knows which of how many it is


def fail(code: int, message: str, error: BaseException | None = None) -> NoReturn:
    """Print one message, and the user's part of a traceback, and leave.

    Of several ranks that fail alike only the first shows it whole; what is between ranks is shown by all.
    """
    lines = []
    if error is not None and not isinstance(error, ShardInitError):
        lines = user_traceback(error)
    elif error is not None:
        message = f"{message}: {error}"
    summary = message if not lines else f"{type(error).__name__}: {error}"
    summary = summary.strip().partition("\n")[0]
    if RANK is not None:
        RANK.failed(summary)
    text = "\n".join([f"shardinit: {message}", *("".join(lines).splitlines())])
    between_ranks = isinstance(error, (JoinError, DisagreementError)) or code in (NEVER_CAME, DISAGREE)
    first = None if RANK is None or between_ranks else RANK.is_first_to_say(text)
    print(text if first is None else f"{summary} (as in rank {first})", file=sys.stderr)
    raise typer.Exit(code if error is None else code_of(error, code))


def code_of(error: BaseException, otherwise: int) -> int:
    """Exit code of what goes wrong between processes; ``otherwise`` for anything else."""
    if isinstance(error, JoinError):
        return NEVER_CAME
    return DISAGREE if isinstance(error, DisagreementError) else otherwise


def user_traceback(error: BaseException) -> list[str]:
    """Frames of the user's code, without those of shardinit, brainstate and JAX."""
    from shardinit.lane.frames import is_of_library

    walked = traceback.walk_tb(error.__traceback__)
    frames = traceback.StackSummary.extract((f, n) for f, n in walked if not is_of_library(f))
    lines = ["Traceback (most recent call last):\n", *frames.format()] if frames else []
    if notes := getattr(error, "__notes__", None):  # JAX's own, about frames that are not shown here either
        error.__notes__ = [note for note in notes if "JAX_TRACEBACK_FILTERING" not in note]  # type: ignore[attr-defined]
    return lines + traceback.format_exception_only(error)
