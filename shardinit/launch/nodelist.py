"""SLURM's short forms of host lists and of tasks per node."""

import re
from collections.abc import Iterator
from itertools import product

from shardinit.errors import LaunchError

BRACKETS = re.compile(r"\[([^\[\]]*)\]")
RANGE = re.compile(r"(\d+)(?:-(\d+))?", re.ASCII)
TASKS = re.compile(r"(\d+)(?:\(x(\d+)\))?", re.ASCII)


def expand_nodelist(text: str, source: str = "nodelist") -> Iterator[str]:
    """Name the hosts of ``node[001-015,020],host2`` or ``a-[1-2]-b``, in order.

    Raises
    ------
    LaunchError
        If a bracket or a range cannot be read; names ``source``.

    Examples
    --------
    >>> list(expand_nodelist("n[08-10],b-[1-2]-c"))
    ['n08', 'n09', 'n10', 'b-1-c', 'b-2-c']
    """
    # A comma separates hosts unless it stands in brackets.
    for item in re.split(r",(?![^\[\]]*\])", text.strip()):
        pieces = BRACKETS.split(item.strip())
        if not item.strip() or any(c in "[] \t" for literal in pieces[::2] for c in literal):
            raise LaunchError(f"{source}={text} is not a list of hosts. Write it like node[001-015,020],host2.")
        choices = [[p] if i % 2 == 0 else list(_numbers(p, text, source)) for i, p in enumerate(pieces)]
        yield from map("".join, product(*choices))


def _numbers(ranges: str, text: str, source: str) -> Iterator[str]:
    for piece in ranges.split(","):
        found = RANGE.fullmatch(piece.strip())
        first, last = (found[1], found[2] or found[1]) if found else ("1", "0")
        if int(last) < int(first):
            raise LaunchError(f"{source}={text} has the range {piece!r}, which is none. Write it like [001-015,020].")
        yield from (str(number).zfill(len(first)) for number in range(int(first), int(last) + 1))


def expand_tasks(text: str, source: str = "tasks per node") -> list[int]:
    """Count the tasks of each node from ``2(x3),1``.

    Examples
    --------
    >>> expand_tasks("2(x3),1")
    [2, 2, 2, 1]
    """
    counts: list[int] = []
    for piece in text.split(","):
        found = TASKS.fullmatch(piece.strip())
        if not found:
            raise LaunchError(f"{source}={text} is not a list of tasks per node. Write it like 2(x3),1.")
        counts += [int(found[1])] * int(found[2] or 1)
    return counts
