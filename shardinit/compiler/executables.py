"""Executables: compiled in threads, and kept for the next initialization that needs the same."""

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from shardinit.backend.ambient import default_device
from shardinit.backend.private_jax import configuration
from shardinit.compiler.keys import key_program, table_shape
from shardinit.compiler.lanes import LaneLayout
from shardinit.compiler.programs import UniqueProgram
from shardinit.compiler.strategies import layout_of, piece_program
from shardinit.lane.digest import NOTHING, Content
from shardinit.lane.key_rows import KeyTable

CACHED_EXECUTABLES = 256  # each is up to 50 mappings of memory, of the 65,530 that Linux gives a process
CACHED_ARRAY_BYTES = 2**27  # of the arrays in them: what a jit inside init closes over

# LLVM's later passes cost the key program more than they give. It is all integers, so its bits are the same;
# not so for the others, where they decide which elements go through a vectorized logarithm.
KEY_OPTIONS_ON_CPU = {"xla_backend_optimization_level": 1}


@dataclass(frozen=True, slots=True, eq=False)
class CompiledProgram:
    """A unique program with its executable, which may still be compiling."""

    program: UniqueProgram
    layout: LaneLayout
    executable: Future

    @property
    def strategy(self) -> str:
        """The strategy that it runs under."""
        return self.program.way.strategy


def platform_of(mesh: Any) -> str:
    """Platform of a mesh, or of the default device."""
    return (default_device() if mesh is None else mesh.devices.flat[0]).platform


class Compiler:
    """Lowers in the caller's thread, where its JAX configuration holds, and compiles in others.

    Attributes
    ----------
    keys
        Per key table and layout that pieces read it in: the key program.
    cached
        How many of the executables were compiled before, in this process.
    """

    def __init__(self, layout: LaneLayout, tables: Sequence[KeyTable]):
        self.layout = layout
        self.tables = tables
        self.keys: dict[tuple[int, LaneLayout], Future] = {}
        self.cached = 0

    def submit(self, program: UniqueProgram) -> CompiledProgram:
        """Start to compile a program, and the key programs that it needs."""
        layout = layout_of(program, self.layout)
        for table in {t for t, _ in program.structure.keys}:
            if (table, layout) not in self.keys:
                shape = table_shape(self.tables[table], layout)
                filled = self.tables[table]
                key = ("keys", filled.kinds, len(filled.roots), len(filled.parents), shape, filled.dtype)
                self.keys[table, layout] = self._compiled(
                    (key, layout),
                    NOTHING,
                    partial(key_program, self.tables[table], layout),
                    KEY_OPTIONS_ON_CPU if platform_of(layout.mesh) == "cpu" else None,
                )
        shapes = tuple((table_shape(t, layout), t.dtype) for t in self.tables)
        piece = (program.key, len(program.instances), shapes, layout)
        with program.numbers():
            executable = self._compiled(
                piece, program.structure.content, partial(piece_program, program, self.tables, layout)
            )
        return CompiledProgram(program, layout, executable)

    def _compiled(
        self, key: Any, content: Content, make: Callable[[], Any], options: dict[str, Any] | None = None
    ) -> Future:
        future, is_new = _executables.get((key, configuration()), content)
        self.cached += not is_new
        if is_new:
            with _failing_with(future):
                jitted, arguments = make()
                lowered = jitted.lower(*arguments)
                _threads.submit(_compile_into, future, lowered, options)
        return future


@contextlib.contextmanager
def _failing_with(future: Future) -> Iterator[None]:
    """Tell whoever waits for it, also where it is an interrupt: who asks next tries again."""
    try:
        yield
    except BaseException as error:
        future.set_exception(error)
        raise


def _compile_into(future: Future, lowered: Any, options: dict[str, Any] | None) -> None:
    with contextlib.suppress(Exception), _failing_with(future):
        future.set_result(lowered.compile(compiler_options=options))


class _Cache:
    """The executables that were used last; what one thread is making, others wait for.

    What would keep objects of the user's alive is not kept, and of those with large arrays only few.
    """

    def __init__(self, most: int, most_bytes: int):
        self.most = most
        self.most_bytes = most_bytes
        self.lock = threading.Lock()
        self.futures: OrderedDict[Any, Future] = OrderedDict()
        self.sizes: dict[Any, int] = {}

    def get(self, key: Any, content: Content) -> tuple[Future, bool]:
        """Return the future of an executable, and whether the caller is the one to make it."""
        if not content.is_code_alone or content.array_bytes > self.most_bytes:
            return Future(), True
        with self.lock:
            future = self.futures.get(key)
            is_new = False
            if future is None or (future.done() and future.exception() is not None):
                future, is_new = Future(), True
                self.futures[key], self.sizes[key] = future, content.array_bytes
            self.futures.move_to_end(key)
            while len(self.futures) > self.most or sum(self.sizes.values()) > self.most_bytes:
                oldest, _ = self.futures.popitem(last=False)
                del self.sizes[oldest]
            return future, is_new


_threads = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="shardinit-compile")
_executables = _Cache(CACHED_EXECUTABLES, CACHED_ARRAY_BYTES)
