"""The mutable things a module is made of: what init changed in them, how to undo it, how to redo it.

Init code sets attributes, appends to lists and fills dictionaries. All of that is recorded as the
contents of each container before and after the trace, so that the module can be put back as it was
and changed for good only when every array is there.
"""

import functools
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
from brainstate import State

# Objects of these packages are values, not parts of a module.
OPAQUE_PACKAGES = frozenset(
    {"jax", "jaxlib", "numpy", "brainunit", "saiunit", "threading", "_thread", "logging", "weakref"}
)
OPAQUE_TYPES = (type, types.ModuleType, str, bytes, int, float, complex, bool, type(None), types.BuiltinFunctionType)
CONTAINERS = (list, dict, set)
# Values are handled leaf by leaf; the rest says where a state was made, and which hooks watch it.
STATE_INTERNALS = frozenset({"_value", "_level", "_trace_state", "_source_info", "_hooks_manager"})


def contents(container: Any) -> Any:
    """Copy what a container holds, one level deep."""
    if isinstance(container, types.CellType):
        return container.cell_contents
    if isinstance(container, State):
        return {k: v for k, v in vars(container).items() if k not in STATE_INTERNALS}
    return container.copy() if isinstance(container, CONTAINERS) else dict(vars(container))


def set_contents(container: Any, new: Any) -> None:
    """Put contents back into a container, in place."""
    if isinstance(container, types.CellType):
        container.cell_contents = new
    elif isinstance(container, list):
        container[:] = new
    elif isinstance(container, State):
        for name in contents(container).keys() - new.keys():
            del vars(container)[name]
        vars(container).update(new)
    else:
        target = container if isinstance(container, (dict, set)) else vars(container)
        target.clear()
        target.update(new)


def is_container(value: Any) -> bool:
    """Whether a value is a mutable part of a module, to be looked into."""
    if isinstance(value, OPAQUE_TYPES):
        return False
    if isinstance(value, (*CONTAINERS, State)):
        return True
    if isinstance(value, types.CellType):
        return True
    if isinstance(value, (types.FunctionType, types.MethodType, functools.partial)):
        return False
    return hasattr(value, "__dict__") and type(value).__module__.partition(".")[0] not in OPAQUE_PACKAGES


def children(value: Any) -> Iterator[tuple[Any, Any]]:
    """Name and value of what a container or an immutable value directly holds."""
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, (list, tuple, set)):
        yield from enumerate(value)
    elif isinstance(value, types.FunctionType):
        yield from enumerate(c for c in value.__closure__ or () if _is_filled(c))
    elif isinstance(value, types.MethodType):
        yield from (("__self__", value.__self__), ("__func__", value.__func__))
    elif isinstance(value, functools.partial):
        yield from (("func", value.func), ("args", value.args), ("keywords", value.keywords))
    elif isinstance(value, types.CellType):
        yield "cell", value.cell_contents
    elif isinstance(value, State):
        yield from contents(value).items()
    elif is_container(value):
        yield from vars(value).items()


def _is_filled(cell) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def walk(root: Any) -> Iterator[tuple[tuple, Any]]:
    """Yield path and value of everything below ``root`` that holds something else, each once."""
    seen: set[int] = set()
    stack: list[tuple[tuple, Any]] = [((), root)]
    while stack:
        path, value = stack.pop()
        if id(value) in seen or isinstance(value, OPAQUE_TYPES):
            continue
        if not (
            is_container(value) or isinstance(value, (tuple, types.FunctionType, types.MethodType, functools.partial))
        ):
            continue
        seen.add(id(value))
        yield path, value
        stack.extend(((*path, name), child) for name, child in reversed(list(children(value))))


@dataclass(frozen=True, slots=True)
class Change:
    """What one container held before and after the trace (``before`` None: it is new)."""

    container: Any
    path: tuple
    before: Any
    after: Any


class Snapshot:
    """The contents of every container below ``root`` at one moment."""

    def __init__(self, root: Any):
        self.root = root
        self.before: dict[int, tuple[Any, Any]] = {}
        self.state_paths: dict[int, tuple] = {}
        for path, value in walk(root):
            if is_container(value):
                self.before[id(value)] = (value, contents(value))
            if isinstance(value, State):
                self.state_paths[id(value)] = path

    def changes(self) -> list[Change]:
        """List what differs now from the moment of the snapshot, and every container that is new."""
        found, reached = [], set()
        for path, container in walk(self.root):
            if not is_container(container):
                continue
            reached.add(id(container))
            _, before = self.before.get(id(container), (None, None))
            after = contents(container)
            if before is None or not same(before, after):
                found.append(Change(container, path, before, after))
        for key, (container, before) in self.before.items():
            if key not in reached and not same(before, after := contents(container)):
                found.append(Change(container, (), before, after))
        return found

    def restore(self) -> None:
        """Put every container back to the moment of the snapshot."""
        for container, before in self.before.values():
            if not same(contents(container), before):
                set_contents(container, before)


def same(a: Any, b: Any) -> bool:
    """Whether two contents hold the very same objects."""
    if isinstance(a, dict):
        return len(a) == len(b) and all(k in b and b[k] is v for k, v in a.items())
    if isinstance(a, list):
        return len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True))
    return a == b if isinstance(a, set) else a is b


def substitute(value: Any, is_leaf: Callable[[Any], bool], replace: Callable[[Any], Any]) -> Any:
    """Replace leaves in a value that is no container itself: a leaf, a tuple, a registered pytree."""
    if is_leaf(value):
        return replace(value)
    if is_container(value) or isinstance(value, OPAQUE_TYPES):
        return value
    leaves, tree = jax.tree.flatten(value, is_leaf=is_container)
    if len(leaves) == 1 and leaves[0] is value:
        return value
    if not any(is_leaf(x) for x in leaves):
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


def map_contents(held: Any, change: Callable[[Any], Any]) -> Any:
    """Apply a function to every direct child of contents."""
    if isinstance(held, dict):
        return {k: change(v) for k, v in held.items()}
    if isinstance(held, (list, set)):
        return type(held)(map(change, held))
    return change(held)
