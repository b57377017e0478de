"""``python -m tests.fuzz MINUTES [SEED]``: write programs and compare, for as long as wanted."""

import random
import sys
import time

import tests.conftest  # noqa: F401  # emulates the devices before anything starts them

# isort: split
import jax

from tests.fuzz.search import Search

CHUNK = 50


def main(minutes: float, number: int) -> int:
    until, found, start = time.monotonic() + 60 * minutes, 0, time.monotonic()
    search = Search(until=until, most_targets=3, wide=True)
    while time.monotonic() < until:
        difference = search.chunk(number, CHUNK)
        if difference:
            found += 1
            print(f"difference {found}, seed {number}:\n{difference}\n", flush=True)
        number += 1
        passed = (time.monotonic() - start) / 60
        print(f"{passed:.0f} min: {search}, {found} differences", flush=True)
        if number % 4 == 0:  # memory stays bounded
            jax.clear_caches()
    print(" ".join(sorted(search.primitives)))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(2**31)))
