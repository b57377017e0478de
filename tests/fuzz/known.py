"""Faults that are known and being mended: programs that would only find them again."""

from collections.abc import Callable
from typing import Any

from tests.fuzz.program import Program

# What is wrong -> what shows it, in the source. Empty it as faults are mended.
KNOWN: dict[str, Callable[[str, Any], Any]] = {
    "a jit of which not all outputs are used divides otherwise": lambda s, t: "jax.jvp(" in s,
}


def is_known(program: Program, target: Any) -> bool:
    """Whether a program needs what is known to be broken."""
    return any(shows(program.source, target) for shows in KNOWN.values())
