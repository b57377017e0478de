"""Which lines of init draw random numbers on the host: those are the same on every lane.

Python's own events of calls, from 3.12 on, see generators that init makes and drops too. On 3.11, only generators that
were there before, or are kept, can be seen: by their state, afterwards.
"""

import contextlib
import os
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

import brainstate
import jax
import numpy as np

from shardinit.discover.frames import INSTALLED, STDLIB, user_line
from shardinit.discover.host_objects import GENERATORS

# What these draw on the host are seeds, which are named where they are used.
SEEDING = tuple(os.path.dirname(str(module.__file__)) + os.sep for module in (jax, brainstate))
NUMPY = os.path.dirname(np.__file__) + os.sep
NO_DRAWS = frozenset({"seed", "getstate", "setstate", "get_state", "set_state", "spawn", "jumped", "advance"})


@contextlib.contextmanager
def watched_draws() -> Iterator[dict[str, None] | None]:
    """Yield the lines that draw while the context is open; None where Python has no such events."""
    monitoring: Any = getattr(sys, "monitoring", None)
    tool = next((i for i in range(6) if monitoring.get_tool(i) is None), None) if monitoring else None
    if tool is None:
        yield None
        return
    lines: dict[str, None] = {}
    thread = threading.get_ident()

    def called(code, offset, function, first):
        if code.co_filename.startswith(SEEDING):
            return monitoring.DISABLE
        if not _draws(function, first):
            # A line of the user's may call a generator the next time; in libraries, looking again costs too much.
            of_library = code.co_filename.startswith(STDLIB) or "-packages" in code.co_filename
            return monitoring.DISABLE if of_library else None
        if threading.get_ident() == thread and not _is_seeding(sys._getframe(1)):
            lines[user_line()] = None
        return None

    monitoring.use_tool_id(tool, "shardinit")
    monitoring.register_callback(tool, monitoring.events.CALL, called)
    try:
        monitoring.set_events(tool, monitoring.events.CALL)
        monitoring.restart_events()
        yield lines
    finally:
        monitoring.set_events(tool, 0)
        monitoring.register_callback(tool, monitoring.events.CALL, None)
        monitoring.free_tool_id(tool)


def _is_seeding(frame: types.FrameType | None) -> bool:
    """Whether Python's own modules (``random``, ``secrets``) or NumPy's were called by what only seeds."""
    while frame is not None and _is_between(frame.f_code.co_filename):
        frame = frame.f_back
    return frame is None or frame.f_code.co_filename.startswith(SEEDING)


def _is_between(filename: str) -> bool:
    return filename.startswith(NUMPY) or (filename.startswith(STDLIB) and not filename.startswith(INSTALLED))


def _draws(function: Any, first: Any) -> bool:
    """Whether a call is that of a generator's method, bound or not, or asks the system."""
    if function is os.urandom:
        return True
    name = getattr(function, "__name__", "")
    owner = getattr(function, "__self__", None)
    if not isinstance(owner, GENERATORS):
        owner = first if isinstance(first, GENERATORS) and hasattr(type(first), name) else None
    return owner is not None and name not in NO_DRAWS and not name.startswith("__")
