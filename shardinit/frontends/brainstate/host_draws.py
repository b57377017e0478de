"""What in init draws random numbers on the host: those are the same on every lane.

A generator that init makes, and bytes of the system, are seen where the user's line asks for them. Of a generator that
was there before it is seen afterwards that it moved: of all that can be reached from the module, from the globals and
classes of Python files, and from closures. Of an installed package, of which there may be thousands of files, closures
are looked at as far as functions close over them, not into containers and objects there. Python's own events of calls
would see more, and more than halve the speed of tracing.
"""

import contextlib
import functools
import operator
import os
import random
import sys
import threading
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import brainstate
import jax
import numpy as np
from numpy.random import bit_generator

from shardinit.frontends.brainstate.host_objects import GENERATORS, kind_of
from shardinit.frontends.brainstate.snapshot import walk
from shardinit.lane.frames import INSTALLED, STDLIB, is_library, user_line

# What these draw on the host are seeds, which are named where they are used.
SEEDING = tuple(os.path.dirname(str(module.__file__)) + os.sep for module in (jax, brainstate))
PACKAGES = {"site-packages", "dist-packages"}  # folders of installed packages, of virtual environments too
NUMPY = os.path.dirname(np.__file__) + os.sep


@contextlib.contextmanager
def watched_draws() -> Iterator[tuple[dict[str, None], set[str]]]:
    """Yield the lines that make generators or ask the system, and the global generators that are seeded meanwhile."""
    lines: dict[str, None] = {}
    seeded: set[str] = set()
    thread = threading.get_ident()

    def noted(function: Any) -> Any:
        def called(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() == thread and not _is_seeding(sys._getframe(1)):
                lines[user_line()] = None
            return function(*args, **kwargs)

        return called

    def noted_seed(name: Any, function: Any) -> Any:
        def seed(*args: Any, **kwargs: Any) -> Any:
            seeded.add(name)
            return function(*args, **kwargs)

        return seed

    seeds = bit_generator.ISeedSequence  # every bit generator looks whether it was given one
    looks = {"__instancecheck__": noted(lambda _, value: isinstance(value, seeds))}
    replaced = [
        (bit_generator, "ISeedSequence", type("Watched", (type,), looks)("ISeedSequence", (), {})),
        (random.Random, "__init__", noted(random.Random.__init__)),
        (random, "_urandom", noted(os.urandom)),
        (os, "urandom", noted(os.urandom)),
        (random, "seed", noted_seed("random", random.seed)),
        (np.random, "seed", noted_seed("numpy.random", np.random.seed)),
    ]
    with contextlib.ExitStack() as stack:
        for owner, name, value in replaced:
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)
        yield lines, seeded


def _is_seeding(frame: types.FrameType | None) -> bool:
    """Whether Python's own modules (``random``, ``secrets``) or NumPy's were called by what only seeds."""
    while frame is not None and _is_between(frame.f_code.co_filename):
        frame = frame.f_back
    return frame is None or frame.f_code.co_filename.startswith(SEEDING)


def _is_between(filename: str) -> bool:
    return filename.startswith(NUMPY) or (filename.startswith(STDLIB) and not filename.startswith(INSTALLED))


# Path -> the names that there were, with what they stood for, and what was found.
_known: dict[tuple, tuple[dict[str, Any], tuple[list[str], list[type]] | None]] = {}


def generators_by_name(classes: Iterable[type]) -> dict[tuple, Any]:
    """Generators that code can reach by a name: globals of modules, attributes of classes, closures of functions."""
    found: dict[tuple, Any] = {}
    for gone in [path for path in _known if path[0] not in sys.modules]:
        _known.pop(gone, None)
    users: dict[tuple, Any] = {}  # functions of the user that close over something
    of_classes = [(_name_of(c), names := dict(vars(c)), _looked_at(names)[0], True) for c in classes]
    for path, space, keys, is_users in [*of_classes, *_spaces()]:
        for key in keys:
            value = space[key]
            if not isinstance(value, types.FunctionType):
                found |= {(*path, key): value} if kind_of(value) == "generator" else {}
            elif is_users:
                users[(*path, key)] = value
            else:
                found |= {(*path, key, *below): v for below, v in _in_closures(value)}
    # All closures at once: what several of them reach is looked at once.
    return found | {path: value for path, value in walk(users) if kind_of(value) == "generator"}


def _spaces() -> Iterator[tuple[tuple, dict[str, Any], list[str], bool]]:
    """Yield path, names, which of them to look at, and whether it is the user's, for modules and their classes."""
    for name, module in list(sys.modules.items()):
        filename = getattr(module, "__file__", None) or ""
        if isinstance(module, types.ModuleType) and not is_library(name, filename):
            is_users = not _is_installed(filename)
            space = dict(vars(module))
            keys, classes = _looked_at(space) if is_users else _looked_at_again((name,), space)
            yield (name,), space, keys, is_users
            for value in classes:
                if value.__module__ == name:
                    path, space = _name_of(value), dict(vars(value))
                    keys, _ = _looked_at(space) if is_users else _looked_at_again(path, space)
                    yield path, space, keys, is_users


@functools.cache
def _is_installed(filename: str) -> bool:
    return not PACKAGES.isdisjoint(Path(filename).parts)


def _name_of(of: type) -> tuple[str, str]:
    return of.__module__, of.__qualname__


def _looked_at(space: dict[str, Any]) -> tuple[list[str], list[type]]:
    """Names of generators and of functions that close over something, and the classes."""
    keys = [
        key
        for key, value in space.items()
        if isinstance(value, GENERATORS) or (isinstance(value, types.FunctionType) and value.__closure__)
    ]
    return keys, [value for value in space.values() if isinstance(value, type)]


def _looked_at_again(path: tuple, space: dict[str, Any]) -> tuple[list[str], list[type]]:
    """Do the same for an installed package, which holds thousands of names that seldom change: these are kept."""
    before, found = _known.get(path, ({}, None))
    same = [*before] == [*space] and all(map(operator.is_, before.values(), space.values()))
    if found is None or not same:
        found = _looked_at(space)
        _known[path] = space, found
    return found


def _in_closures(function: types.FunctionType) -> Iterator[tuple[tuple[int, ...], Any]]:
    """Yield the generators that a function of an installed package closes over, itself or by functions."""
    seen: set[int] = set()
    stack: list[tuple[tuple[int, ...], types.FunctionType]] = [((), function)]
    while stack:
        path, function = stack.pop()
        seen.add(id(function))
        for at, cell in enumerate(function.__closure__ or ()):
            try:
                value = cell.cell_contents
            except ValueError:  # it is empty
                continue
            if isinstance(value, GENERATORS):
                yield (*path, at), value
            elif isinstance(value, types.FunctionType) and id(value) not in seen:
                stack.append(((*path, at), value))
