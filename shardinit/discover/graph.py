"""The mutable things a module is made of: what init changed in them, how to undo it, how to redo it.

Init code sets attributes, appends to lists and fills dictionaries. The contents of each container below
the module are recorded before and after the trace, so that the module can be put back as it was and
changed for good only when every array is there. Generators, buffers and iterators are in ``host_objects``.
Not recorded: attributes of classes, globals, and the files behind ``np.memmap``.
"""

import functools
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from brainstate import State

from shardinit.discover import host_objects
from shardinit.discover.private_brainstate import STATE_INTERNALS
from shardinit.wording import key_text, path_text

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
HOST_KINDS = frozenset({"generator", "buffer", "iterator"})
ITEMS = (list, dict, set, deque)
# Immutable, but they may hold containers.
HOLDERS = (tuple, types.MethodType, functools.partial, memoryview)


def kinds_of(value: Any) -> tuple[str, ...]:
    """In which ways a value is mutable: its items, its attributes, ..."""
    if isinstance(value, (*OPAQUE_TYPES, *HOLDERS)):
        return ()
    if isinstance(value, ITEMS):
        return ("items", "attributes") if getattr(value, "__dict__", None) else ("items",)
    if isinstance(value, types.CellType):
        return ("cell",)
    if isinstance(value, types.FunctionType):
        return ("function",)
    if isinstance(value, np.ndarray):
        return ("array",) if value.flags.writeable and not isinstance(value, np.memmap) else ()
    if of_host := host_objects.kind_of(value):
        # A subclass of random.Random has attributes too.
        return (of_host, "attributes") if getattr(value, "__dict__", None) else (of_host,)
    opaque = type(value).__module__.partition(".")[0] in OPAQUE_PACKAGES
    return () if opaque or not (hasattr(value, "__dict__") or _slots(value.__class__)) else ("attributes",)


def read(value: Any, kind: str) -> Any:
    """Copy what a value holds in one of its ways, one level deep."""
    if kind == "items" or kind == "array":
        return value.copy()
    if kind == "cell":
        return {"cell": value.cell_contents} if _is_filled(value) else {}
    if kind == "function":
        return {"__defaults__": value.__defaults__, "__kwdefaults__": value.__kwdefaults__, **vars(value)}
    if kind in HOST_KINDS:
        return host_objects.read(value, kind)
    held = {s: getattr(value, s) for s in _slots(value.__class__) if hasattr(value, s)} | getattr(value, "__dict__", {})
    # The value of a state is handled leaf by leaf.
    return {k: v for k, v in held.items() if k not in STATE_INTERNALS} if isinstance(value, State) else held


def write(value: Any, kind: str, held: Any) -> None:
    """Put back what a value held, in place."""
    if kind == "array":
        value[...] = held
    elif kind in HOST_KINDS:
        host_objects.write(value, kind, held)
    elif kind == "items" and not isinstance(value, dict):
        value.clear()
        value.extend(held) if isinstance(value, (list, deque)) else value.update(held)
    else:
        write_names(value, kind, read(value, kind), held)
        if kind == "items" and list(value) != list(held):
            value.clear()
            value.update(held)


def write_names(value: Any, kind: str, before: dict, after: dict) -> None:
    """Make the difference between two dictionaries of names in a value that has names."""
    for name in before.keys() - after.keys():
        if kind == "items":
            value.pop(name, None)
        elif kind == "attributes":
            _delete(value, name)
        elif kind == "function":
            vars(value).pop(name, None)
    for name, new in after.items():
        if name in before and before[name] is new:
            continue
        if kind == "items":
            value[name] = new
        elif kind == "cell":
            value.cell_contents = new
        elif name in getattr(value, "__dict__", {}) or not hasattr(type(value), name):
            vars(value)[name] = new
        else:
            object.__setattr__(value, name, new)


def _delete(value: Any, name: str) -> None:
    if name in getattr(value, "__dict__", {}):
        del vars(value)[name]
    elif hasattr(value, name):
        object.__delattr__(value, name)


@functools.cache
def _slots(of: Any) -> tuple[str, ...]:
    declared = [vars(c).get("__slots__", ()) for c in of.__mro__]
    slots = [s for names in declared for s in ((names,) if isinstance(names, str) else names)]
    return tuple(s for s in slots if not s.startswith("__"))


def _is_filled(cell) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def children(value: Any) -> Iterator[tuple[Any, Any]]:
    """Name and value of what a value directly holds."""
    if isinstance(value, types.MethodType):
        yield from (("__self__", value.__self__), ("__func__", value.__func__))
    elif isinstance(value, functools.partial):
        yield from (("func", value.func), ("args", value.args), ("keywords", value.keywords))
    elif isinstance(value, memoryview):
        yield "obj", value.obj
    elif isinstance(value, tuple):
        yield from enumerate(value)
    for kind in kinds_of(value):
        if kind == "items" and not isinstance(value, dict):
            yield from enumerate(value)
        elif _is_of_objects(value):
            yield from enumerate(value.flat)
        elif kind != "array" and kind not in HOST_KINDS:
            yield from read(value, kind).items()
    if isinstance(value, types.FunctionType):
        yield from enumerate(value.__closure__ or ())


def walk(roots: dict[tuple, Any], values_of_states: bool = False) -> Iterator[tuple[tuple, Any]]:
    """Yield path and value of everything mutable or holding something below the roots, each once."""
    seen: set[int] = set()
    stack = list(reversed(roots.items()))
    while stack:
        path, value = stack.pop()
        if id(value) in seen or not (isinstance(value, HOLDERS) or kinds_of(value)):
            continue
        seen.add(id(value))
        yield path, value
        below = list(children(value))
        if values_of_states and isinstance(value, State):
            below.append(("value", value._value))
        stack.extend(((*path, name), child) for name, child in reversed(below))


@dataclass(frozen=True, slots=True)
class Change:
    """What one container held before and after the trace; ``before`` is None if it is new."""

    container: Any
    kind: str
    path: tuple
    before: Any
    after: Any


class Snapshot:
    """The contents of every container below the roots (path: object) at one moment."""

    def __init__(self, roots: dict[tuple, Any]):
        self.roots = roots
        self.before: dict[tuple[int, str], tuple[Any, tuple, Any]] = {}
        self.state_paths: dict[int, tuple] = {}
        # Also inside the values of states, whose dictionaries init may change in place.
        for path, value in walk(roots, values_of_states=True):
            for kind in kinds_of(value):
                self.before[id(value), kind] = (value, path, read(value, kind))
            if isinstance(value, State):
                self.state_paths[id(value)] = path

    def is_in_a_state(self, path: tuple[str, ...]) -> bool:
        """Whether a path leads into the value of a state that existed."""
        values = [(*map(key_text, of), "value") for of in self.state_paths.values()]
        return any(path[: len(value)] == value for value in values)

    def changes(self) -> list[Change]:
        """List what differs now from the moment of the snapshot, and every container that is new."""
        found: list[Change] = []
        new: dict[tuple[int, str], tuple[Any, tuple, Any]] = {}
        for path, value in walk(self.roots):
            new |= {(id(value), kind): (value, path, None) for kind in kinds_of(value)}
        for (_, kind), (value, path, before) in (new | self.before).items():
            after = read(value, kind)
            if before is None or not same(before, after, kind):
                path = new.get((id(value), kind), (None, path))[1]
                found.append(Change(value, kind, path, before, after))
        return found

    def restore(self) -> list[str]:
        """Put every container back to the moment of the snapshot; name those that cannot be."""
        stuck = []
        for (_, kind), (value, path, before) in self.before.items():
            if not same(read(value, kind), before, kind):
                write(value, kind, before)
                if kind == "iterator" and not same(read(value, kind), before, kind):
                    stuck.append(path_text(path))
        return stuck

    def forget_but(self, changes: list[Change]) -> None:
        """Let go of the contents of everything that is not among the changes."""
        kept = {(id(c.container), c.kind) for c in changes}
        self.before = {key: held for key, held in self.before.items() if key in kept}


def same(a: Any, b: Any, kind: str) -> bool:
    """Whether two contents of one kind hold the very same objects."""
    if kind in HOST_KINDS:
        return host_objects.same(a, b)
    if isinstance(a, np.ndarray):
        if a.shape != b.shape or a.dtype != b.dtype:
            return False
        if _is_of_objects(a):
            return all(x is y for x, y in zip(a.flat, b.flat, strict=True))
        return a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return list(a) == list(b) and all(b[k] is v for k, v in a.items())
    if isinstance(a, set):
        return a == b
    return len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True))


def substitute(value: Any, is_leaf: Callable[[Any], bool], replace: Callable[[Any], Any]) -> Any:
    """Replace leaves in a value that is no container itself: a leaf, a tuple, a registered pytree, a partial."""
    if is_leaf(value):
        return replace(value)
    if isinstance(value, functools.partial):
        inner = (value.args, value.keywords)
        new = substitute(inner, is_leaf, replace), {k: substitute(v, is_leaf, replace) for k, v in inner[1].items()}
        changed = new[0] is not inner or any(new[1][k] is not v for k, v in inner[1].items())
        return type(value)(value.func, *new[0][0], **new[1]) if changed else value
    if kinds_of(value) or isinstance(value, OPAQUE_TYPES):
        return value
    leaves, tree = jax.tree.flatten(value, is_leaf=lambda x: bool(kinds_of(x)))
    if (len(leaves) == 1 and leaves[0] is value) or not any(is_leaf(x) for x in leaves):
        return value
    return jax.tree.unflatten(tree, [replace(x) if is_leaf(x) else x for x in leaves])


def find_leaves(value: Any, is_leaf: Callable[[Any], bool]) -> list[Any]:
    """List the leaves that ``substitute`` would replace, in its order."""
    found: list[Any] = []

    def note(leaf):
        found.append(leaf)
        return leaf

    substitute(value, is_leaf, note)
    return found


def named(held: Any) -> dict[Any, Any]:
    """Contents by name; the items of a list, set or array of objects by their number."""
    if isinstance(held, dict):
        return held
    if _is_of_objects(held):
        return dict(enumerate(held.flat))
    return dict(enumerate(held)) if isinstance(held, (list, set, deque)) else {}


def map_contents(held: Any, change: Callable[[Any], Any]) -> Any:
    """Apply a function to every direct child of contents."""
    if isinstance(held, dict):
        return {k: change(v) for k, v in held.items()}
    items = named(held).values()
    return with_items(held, map(change, items)) if items else held


def with_items(held: Any, items: Iterable[Any]) -> Any:
    """Make contents of the same kind from items in the order of ``named``."""
    if not _is_of_objects(held):
        return type(held)(items)
    filled = np.empty(held.size, object)
    for at, item in enumerate(items):
        filled[at] = item
    return filled.reshape(held.shape)


def _is_of_objects(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == object
