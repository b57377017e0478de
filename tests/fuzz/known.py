"""Faults that are known and being mended: programs that would only find them again."""

import re
from collections.abc import Callable
from typing import Any

from tests.fuzz.program import Program

# Item of the issue -> what shows it, in the source. Empty it as the items land.
KNOWN: dict[str, Callable[[str, Any], Any]] = {
    "4: pad without partitionable keys": lambda s, t: t.remainder == "pad" and "partitionable" in s,
    "31: op by op inside of checkpoint, cond, switch": lambda s, t: re.search(r"checkpoint\(|lax\.cond|lax\.switch", s),
}


def is_known(program: Program, target: Any) -> bool:
    """Whether a program needs what is known to be broken."""
    return any(shows(program.source, target) for shows in KNOWN.values())
