"""Differences that are known and being mended: what to look away from, until it is."""

import re
from collections.abc import Callable
from typing import Any

import jax

from tests.fuzz.program import Program

# What is wrong -> what shows it, in the source. Empty it as faults are mended.
KNOWN: dict[str, Callable[[str, Any], Any]] = {}

# What rounds otherwise -> what shows it. These are compared to last bits.
ROUNDED: dict[str, Callable[[str, Any], Any]] = {
    "exp of three to five elements per lane, jax 0.12": lambda s, t: (
        jax.__version_info__ >= (0, 12) and re.search(r"exp|tanh|erf|gelu|sigmoid|silu|normal|lognormal|softmax|log", s)
    ),
}


def is_known(program: Program, target: Any) -> bool:
    """Whether a program needs what is known to be broken."""
    return any(shows(program.source, target) for shows in KNOWN.values())


def known_ulps(program: Program, target: Any) -> int:
    """How many units in the last place its states may be off."""
    return 8 if any(shows(program.source, target) for shows in ROUNDED.values()) else 0
