"""``python -m tests.fuzz MINUTES [SEED]``: write programs and compare, for as long as wanted."""

import random
import sys
import time
from collections import Counter

import tests.conftest  # noqa: F401  # emulates the devices before anything starts them

# isort: split
import jax
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase

from tests.fuzz.compare import MANY, ONE, differences, eager
from tests.fuzz.known import is_known
from tests.fuzz.strategies import programs

CHUNK = 100


class Difference(AssertionError):
    """What shardinit and eager brainstate leave is not the same."""


class Fuzzer:
    """Counts what was tried."""

    def __init__(self, minutes: float):
        self.until = time.monotonic() + 60 * minutes
        self.counts: Counter[str] = Counter()
        self.primitives: set[str] = set()

    def try_one(self, program, target) -> None:
        if time.monotonic() > self.until:
            return
        if is_known(program, target):
            self.counts["known to be broken"] += 1
            return
        try:
            expected = eager(program)
        except Exception:
            self.counts["refused by brainstate"] += 1
            return
        found, left = differences(program, expected, target)
        self.counts["compared" if left or found else "lanes that the target does not take"] += 1
        self.primitives |= left.primitives if left else set()
        if found:
            raise Difference(f"{target}\n" + "\n".join([*found, program.source]))

    def chunk(self, number: int) -> str | None:
        """Try some programs; what the smallest that differs leaves, if one does."""
        database = DirectoryBasedExampleDatabase(".hypothesis")

        @seed(number)
        @settings(max_examples=CHUNK, deadline=None, database=database, suppress_health_check=list(HealthCheck))
        @given(programs(), st.sampled_from(ONE + MANY))
        def compare(program, target):
            self.try_one(program, target)

        try:
            compare()
        except Difference as difference:
            return str(difference)
        finally:
            jax.clear_caches()
        return None


def main(minutes: float, number: int) -> int:
    fuzzer, found = Fuzzer(minutes), 0
    while time.monotonic() < fuzzer.until:
        difference = fuzzer.chunk(number)
        if difference:
            found += 1
            print(f"difference {found}, seed {number}:\n{difference}\n", flush=True)
        number += 1
        counts = ", ".join(f"{n} {what}" for what, n in fuzzer.counts.items())
        print(f"{counts}; {len(fuzzer.primitives)} primitives, {found} differences", flush=True)
    print(" ".join(sorted(fuzzer.primitives)))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(2**31)))
