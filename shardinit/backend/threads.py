"""One thread at a time: states, random states and generators belong to the whole process, not to a thread."""

import functools
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_lock = threading.RLock()


def one_at_a_time(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Let other threads wait while a function traces states, or reads random keys and writes the next ones."""

    @functools.wraps(function)
    def alone(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        with _lock:
            return function(*args, **kwargs)

    return alone
