"""The search: programs that Hypothesis writes, each initialized by eager brainstate and on some targets."""

import time
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.compare import MANY, ONE, Target, differences, eager
from tests.fuzz.program import Program
from tests.fuzz.strategies import programs
from tests.fuzz.vocabulary import some


class Difference(AssertionError):
    """What shardinit and eager brainstate leave is not the same."""


class Search:
    """Compares, and counts what was compared.

    Parameters
    ----------
    targets
        Where to initialize.
    most_targets
        How many of them to try with one program.
    until
        When to stop, by ``time.monotonic``.
    slow
        Whether to draw by samplers that are slow to compile, too.
    wide
        Whether every other chunk draws larger shapes.
    options
        Of ``programs``.
    """

    def __init__(
        self,
        targets: tuple[Target, ...] = ONE + MANY,
        *,
        most_targets: int = 1,
        until: float = 1e99,
        slow: bool = True,
        wide: bool = False,
        **options: Any,
    ):
        self.slow, self.wide = slow, wide
        picked = st.lists(st.sampled_from(targets), min_size=1, max_size=most_targets, unique=True)
        self.picked, self.options = picked, options
        self.until = until
        self.counts: Counter[str] = Counter()
        self.primitives: set[str] = set()

    def __str__(self) -> str:
        return ", ".join(f"{n} {what}" for what, n in self.counts.items()) + f"; {len(self.primitives)} primitives"

    def compare(self, program: Program, targets: list[Target]) -> None:
        """Raise if a program differs on one of the targets."""
        if time.monotonic() > self.until:
            return
        try:
            expected = eager(program)
        except Exception:
            self.counts["programs that brainstate refuses"] += 1
            return
        self.counts["programs"] += 1
        for target in targets:
            found, left = differences(program, expected, target)
            self.counts["initializations" if left or found else "targets that do not take the lanes"] += 1
            self.primitives |= left.primitives if left else set()
            if found:
                raise Difference(f"{target}\n" + "\n".join([*found, program.source]))

    def chunk(self, number: int, most: int, *, shrink: bool = True) -> str | None:
        """Write some programs of few words from a seed; what the smallest that differs leaves, if one does."""
        words = some(number, self.slow, self.wide and number % 2 == 1)
        examples = st.tuples(programs(words=words, **self.options), self.picked)
        phases = (Phase.generate, Phase.shrink) if shrink else (Phase.generate,)

        @seed(number)
        @settings(
            max_examples=most, deadline=None, database=None, phases=phases, suppress_health_check=list(HealthCheck)
        )
        @given(examples)
        def compare(example):
            self.compare(*example)

        try:
            compare()
        except Difference as difference:
            return str(difference)
        return None
