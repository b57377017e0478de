"""What in init draws random numbers on the host: those are the same on every lane.

A generator that init makes, and bytes of the system, are seen where the user's line asks for them. Of a generator that
was there before it is seen afterwards that it moved: of all that can be reached from the module, from the globals and
classes of the user's Python files, and from closures. Python's own events of calls would see more, and more than halve
the speed of tracing.
"""

import contextlib
import os
import random
import sys
import threading
import types
from collections.abc import Iterable, Iterator
from typing import Any

import brainstate
import jax
import numpy as np
from numpy.random import bit_generator

from shardinit.discover.frames import INSTALLED, STDLIB, is_library, user_line
from shardinit.discover.graph import walk
from shardinit.discover.host_objects import GENERATORS, kind_of

# What these draw on the host are seeds, which are named where they are used.
SEEDING = tuple(os.path.dirname(str(module.__file__)) + os.sep for module in (jax, brainstate))
NUMPY = os.path.dirname(np.__file__) + os.sep


@contextlib.contextmanager
def watched_draws() -> Iterator[tuple[dict[str, None], set[str]]]:
    """Yield the lines that make generators or ask the system, and the global generators that are seeded meanwhile."""
    lines: dict[str, None] = {}
    seeded: set[str] = set()
    thread = threading.get_ident()

    def noted(function):
        def called(*args, **kwargs):
            if threading.get_ident() == thread and not _is_seeding(sys._getframe(1)):
                lines[user_line()] = None
            return function(*args, **kwargs)

        return called

    def noted_seed(name, function):
        def seed(*args, **kwargs):
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


def generators_by_name(classes: Iterable[type]) -> dict[tuple, Any]:
    """Generators that code can reach by a name: globals of modules, attributes of classes, closures of functions."""
    found: dict[tuple, Any] = {}
    spaces: dict[tuple, dict[str, Any]] = {(c.__module__, c.__qualname__): dict(vars(c)) for c in classes}
    for name, module in list(sys.modules.items()):
        if isinstance(module, types.ModuleType) and not is_library(name, getattr(module, "__file__", None) or ""):
            spaces[(name,)] = dict(vars(module))
            own = [v for v in vars(module).values() if isinstance(v, type) and v.__module__ == name]
            spaces |= {(name, c.__qualname__): dict(vars(c)) for c in own}
    for path, space in spaces.items():
        for key, value in space.items():
            if isinstance(value, types.FunctionType) and value.__closure__:
                found |= {place: v for place, v in walk({(*path, key): value}) if kind_of(v) == "generator"}
            elif isinstance(value, GENERATORS) and kind_of(value) == "generator":
                found[(*path, key)] = value
    return found
