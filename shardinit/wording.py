"""Sizes, counts, paths and ranks in words."""

import re
import types
from collections.abc import Iterable, Sequence
from typing import Any

NOT_HELD = "(not held by the module)"
UNFOLLOWED = "a placement asked for inside init was not followed, the plan places"

_CLASS = re.compile(r"<(?:class|function) '?(?:[\w<>]+\.)*(\w+)(?:'| at 0x[0-9a-f]+)>")
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def size_text(size: float) -> str:
    """Bytes for people: 1.5 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError


def counted(count: int, noun: str) -> str:
    """A number and its noun: 1 state, 1000 states."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def folded(note: str, most: int = 5) -> str:
    """Fold the list of names at the end of a note, for people; receipts have all of them."""
    head, colon, rest = note.rpartition(": ")
    names, stop, more = rest.partition(". ")
    found = names.split(", ")
    if len(found) <= most:
        return note
    return f"{head}{colon}{', '.join(found[:most])} and {len(found) - most} more{stop}{more}"


def key_text(key: Any) -> str:
    """One step of a path as text: classes and functions by name, no addresses, which differ by process."""
    if isinstance(key, (type, types.FunctionType)):
        return key.__name__
    return _ADDRESS.sub("", _CLASS.sub(r"\1", str(key)))


def listed(names: Sequence[str], most: int = 5) -> str:
    """Join names for a sentence, folding a long list."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def path_text(path: Iterable[Any]) -> str:
    """A path as rules write it: ``layers/0/weight``."""
    return "/".join(map(key_text, path)) or NOT_HELD


def mesh_text(axes: Iterable[tuple[str, int]]) -> str:
    """Mesh axes: lanes=4 x model=2."""
    return " x ".join(f"{name}={size}" for name, size in axes) or "one device"


def kind_of(value: Any) -> str:
    """The type of a value with its article: an int, a str."""
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIO' else 'a'} {name}"


def ranks_text(ranks: Sequence[int]) -> str:
    """Name some ranks, runs of them shortened: ``ranks 0-2, 5``."""
    runs: list[list[int]] = []
    for rank in sorted(ranks):
        if runs and rank == runs[-1][-1] + 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    texts = [str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" if len(r) > 2 else f"{r[0]}, {r[1]}" for r in runs]
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(texts)}"
