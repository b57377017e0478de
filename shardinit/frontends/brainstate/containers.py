"""The ways in which a value is mutable, one class each: how its contents are read, compared, changed and put back.

A list has items; an object has attributes; a subclass of dict has both. Contents are copied one level deep: what they
hold is looked at by itself. Generators, buffers and iterators of the host are read and set by ``host_objects``.
"""

import functools
import types
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np
from brainstate import State

from shardinit.frontends.brainstate import host_objects
from shardinit.frontends.brainstate.private_brainstate import STATE_INTERNALS

# Objects of these packages are values, not parts of a module.
OPAQUE_PACKAGES = frozenset({"jax", "jaxlib", "numpy", "brainunit", "saiunit", "threading", "_thread", "logging"})
OPAQUE_TYPES = (
    jax.core.Tracer,
    type,
    types.ModuleType,
    str,
    bytes,
    int,
    float,
    complex,
    bool,
    type(None),
    types.BuiltinFunctionType,
)
# Immutable, but they may hold containers.
HOLDERS = (tuple, types.MethodType, functools.partial, memoryview)


class Contents(ABC):
    """One way in which values are mutable."""

    @abstractmethod
    def read(self, value: Any) -> Any:
        """Copy what a value holds."""

    @abstractmethod
    def write(self, value: Any, held: Any) -> None:
        """Let a value hold this, in place."""

    @abstractmethod
    def is_same(self, a: Any, b: Any) -> bool:
        """Whether two contents hold the very same objects."""

    def parts(self, value: Any) -> Iterator[tuple[Any, Any]]:
        """Yield name and value of what a value holds that may itself be mutable."""
        yield from named(self.read(value)).items()


class Named(Contents):
    """Contents by name: a dictionary when read."""

    def write(self, value: Any, held: Any) -> None:
        """Make the difference, so that what is equal is not touched."""
        self.change(value, self.read(value), held)

    def is_same(self, a: Any, b: Any) -> bool:
        return list(a) == list(b) and all(b[k] is v for k, v in a.items())

    def change(self, value: Any, before: dict, after: dict) -> None:
        """Make the difference between two contents in a value."""
        for name in before.keys() - after.keys():
            self.remove(value, name)
        for name, new in after.items():
            if name not in before or before[name] is not new:
                self.put(value, name, new)

    @abstractmethod
    def put(self, value: Any, name: Any, new: Any) -> None:
        """Set what a value holds under a name."""

    @abstractmethod
    def remove(self, value: Any, name: Any) -> None:
        """Let a value hold nothing under a name."""


class Entries(Named):
    """The entries of a dictionary, in their order."""

    def read(self, value: Any) -> Any:
        return value.copy()

    def parts(self, value: Any) -> Iterator[tuple[Any, Any]]:
        yield from value.items()

    def write(self, value: Any, held: Any) -> None:
        super().write(value, held)
        if list(value) != list(held):
            value.clear()
            value.update(held)

    def put(self, value: Any, name: Any, new: Any) -> None:
        value[name] = new

    def remove(self, value: Any, name: Any) -> None:
        value.pop(name, None)


class Items(Contents):
    """The items of a list, set or deque."""

    def read(self, value: Any) -> Any:
        return value.copy()

    def parts(self, value: Any) -> Iterator[tuple[Any, Any]]:
        yield from enumerate(value)

    def write(self, value: Any, held: Any) -> None:
        value.clear()
        value.update(held) if isinstance(value, set) else value.extend(held)

    def is_same(self, a: Any, b: Any) -> bool:
        if isinstance(a, set):
            return a == b
        return len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True))


class Attributes(Named):
    """The attributes of an object, in its dictionary and its slots.

    Not the value of a State, which is handled leaf by leaf.
    """

    def read(self, value: Any) -> Any:
        held = {s: getattr(value, s) for s in _slots(value.__class__) if hasattr(value, s)}
        held |= getattr(value, "__dict__", {})
        return {k: v for k, v in held.items() if k not in STATE_INTERNALS} if isinstance(value, State) else held

    def put(self, value: Any, name: Any, new: Any) -> None:
        if name in getattr(value, "__dict__", {}) or not hasattr(type(value), name):
            vars(value)[name] = new
        else:
            object.__setattr__(value, name, new)

    def remove(self, value: Any, name: Any) -> None:
        if name in getattr(value, "__dict__", {}):
            del vars(value)[name]
        elif hasattr(value, name):
            object.__delattr__(value, name)


class FunctionFields(Named):
    """The defaults and attributes of a function; its closure is cells."""

    def read(self, value: Any) -> Any:
        return {"__defaults__": value.__defaults__, "__kwdefaults__": value.__kwdefaults__, **vars(value)}

    def put(self, value: Any, name: Any, new: Any) -> None:
        if name in vars(value) or not hasattr(type(value), name):
            vars(value)[name] = new
        else:
            object.__setattr__(value, name, new)

    def remove(self, value: Any, name: Any) -> None:
        vars(value).pop(name, None)

    def parts(self, value: Any) -> Iterator[tuple[Any, Any]]:
        yield from super().parts(value)
        yield from enumerate(value.__closure__ or ())


class Cell(Named):
    """What a function closes over; empty until it is assigned."""

    def read(self, value: Any) -> Any:
        try:
            held = value.cell_contents
        except ValueError:
            return {}
        return {} if held is value else {"cell": held}

    def put(self, value: Any, name: Any, new: Any) -> None:
        value.cell_contents = new

    def remove(self, value: Any, name: Any) -> None:
        """A cell cannot be emptied again; nobody sees the difference before it is assigned anew."""


class Elements(Contents):
    """The elements of a NumPy array in memory that can be written; a mapped file is not recorded."""

    def read(self, value: Any) -> Any:
        return value.copy()

    def write(self, value: Any, held: Any) -> None:
        value[...] = held

    def is_same(self, a: Any, b: Any) -> bool:
        if a.shape != b.shape or a.dtype != b.dtype:
            return False
        if is_of_objects(a):
            return all(x is y for x, y in zip(a.flat, b.flat, strict=True))
        return a.tobytes() == b.tobytes()

    def parts(self, value: Any) -> Iterator[tuple[Any, Any]]:
        if is_of_objects(value):
            yield from enumerate(value.flat)


class OfHost(Contents):
    """Where a generator of random numbers, a buffer or an iterator stands."""

    def __init__(self, kind: str):
        self.kind = kind

    def read(self, value: Any) -> Any:
        return host_objects.read(value, self.kind)

    def write(self, value: Any, held: Any) -> None:
        host_objects.write(value, self.kind, held)

    def is_same(self, a: Any, b: Any) -> bool:
        return host_objects.same(a, b)

    def parts(self, value: Any) -> Iterator[tuple[Any, Any]]:
        yield from ()


ENTRIES, ITEMS, ATTRIBUTES, ELEMENTS = Entries(), Items(), Attributes(), Elements()
GENERATOR, BUFFER, ITERATOR = OfHost("generator"), OfHost("buffer"), OfHost("iterator")
OF_HOST = {each.kind: each for each in (GENERATOR, BUFFER, ITERATOR)}
BY_TYPE: tuple[tuple[Any, Contents], ...] = (
    (dict, ENTRIES),
    ((list, set, deque), ITEMS),
    (types.CellType, Cell()),
    (types.FunctionType, FunctionFields()),
)


def contents_of(value: Any) -> tuple[Contents, ...]:
    """In which ways a value is mutable: by its type, and by its attributes if it has some."""
    if isinstance(value, (*OPAQUE_TYPES, *HOLDERS)):
        return ()
    for kinds, contents in BY_TYPE:
        if isinstance(value, kinds):
            has_more = contents in (ENTRIES, ITEMS) and getattr(value, "__dict__", None)
            return (contents, ATTRIBUTES) if has_more else (contents,)
    if isinstance(value, np.ndarray):
        return (ELEMENTS,) if value.flags.writeable and not isinstance(value, np.memmap) else ()
    if of_host := host_objects.kind_of(value):  # a subclass of random.Random has attributes too
        own = OF_HOST[of_host]
        return (own, ATTRIBUTES) if getattr(value, "__dict__", None) else (own,)
    is_opaque = type(value).__module__.partition(".")[0] in OPAQUE_PACKAGES
    return () if is_opaque or not (hasattr(value, "__dict__") or _slots(value.__class__)) else (ATTRIBUTES,)


def parts_of(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield name and value of what a value directly holds."""
    if isinstance(value, types.MethodType):
        yield from (("__self__", value.__self__), ("__func__", value.__func__))
    elif isinstance(value, functools.partial):
        yield from (("func", value.func), ("args", value.args), ("keywords", value.keywords))
    elif isinstance(value, memoryview):
        yield "obj", value.obj
    elif isinstance(value, tuple):
        yield from enumerate(value)
    for contents in contents_of(value):
        yield from contents.parts(value)


def named(held: Any) -> dict[Any, Any]:
    """Contents by name; the items of a list, set or array of objects by their number."""
    if isinstance(held, dict):
        return held
    if is_of_objects(held):
        return dict(enumerate(held.flat))
    return dict(enumerate(held)) if isinstance(held, (list, set, deque)) else {}


def with_items(held: Any, items: Iterable[Any]) -> Any:
    """Make contents of the same kind from items in the order of ``named``."""
    if not is_of_objects(held):
        return type(held)(items)
    filled = np.empty(held.size, object)
    for at, item in enumerate(items):
        filled[at] = item
    return filled.reshape(held.shape)


def is_of_objects(value: Any) -> bool:
    """Whether it is a NumPy array of Python objects."""
    return isinstance(value, np.ndarray) and value.dtype == object


@functools.cache
def _slots(of: Any) -> tuple[str, ...]:
    declared = [vars(c).get("__slots__", ()) for c in of.__mro__]
    slots = [s for names in declared for s in ((names,) if isinstance(names, str) else names)]
    return tuple(s for s in slots if not s.startswith("__"))
