"""What init changed in the mutable things that a module is made of, how to undo it, how to redo it.

Init code sets attributes, appends to lists and fills dictionaries. The contents of each container below
the module are recorded before and after the trace, so that the module can be put back as it was and
changed for good only when every array is there. The ways in which values are mutable are in ``containers``.
Not recorded: attributes of classes, globals, and the files behind ``np.memmap``.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
from brainstate import State

from shardinit.frontends.brainstate.containers import (
    HOLDERS,
    ITERATOR,
    OPAQUE_TYPES,
    Contents,
    contents_of,
    named,
    parts_of,
    with_items,
)
from shardinit.wording import key_text, path_text


def walk(roots: dict[tuple, Any], values_of_states: bool = False) -> Iterator[tuple[tuple, Any]]:
    """Yield path and value of everything mutable or holding something below the roots, each once."""
    seen: set[int] = set()
    stack = list(reversed(roots.items()))
    while stack:
        path, value = stack.pop()
        if id(value) in seen or not (isinstance(value, HOLDERS) or contents_of(value)):
            continue
        seen.add(id(value))
        yield path, value
        below = list(parts_of(value))
        if values_of_states and isinstance(value, State):
            below.append(("value", value._value))
        stack.extend(((*path, name), child) for name, child in reversed(below))


@dataclass(frozen=True, slots=True)
class Change:
    """What one container held before and after the trace; ``before`` is None if it is new."""

    container: Any
    contents: Contents
    path: tuple
    before: Any
    after: Any


class Snapshot:
    """The contents of every container below the roots (path: object) at one moment."""

    def __init__(self, roots: dict[tuple, Any]):
        self.roots = roots
        self.before: dict[tuple[int, Contents], tuple[Any, tuple, Any]] = {}
        self.state_paths: dict[int, tuple] = {}
        # Also inside the values of states, whose dictionaries init may change in place.
        for path, value in walk(roots, values_of_states=True):
            for contents in contents_of(value):
                self.before[id(value), contents] = (value, path, contents.read(value))
            if isinstance(value, State):
                self.state_paths[id(value)] = path

    def is_in_a_state(self, path: tuple[str, ...]) -> bool:
        """Whether a path leads into the value of a state that existed."""
        values = [(*map(key_text, of), "value") for of in self.state_paths.values()]
        return any(path[: len(value)] == value for value in values)

    def changes(self, returned: Any = None) -> list[Change]:
        """List what differs now from the moment of the snapshot, and every container that is new.

        Containers in what a traced function returned count as new too, by a path from ``returned``.
        """
        found: list[Change] = []
        new: dict[tuple[int, Contents], tuple[Any, tuple, Any]] = {}
        for path, value in walk({**self.roots, ("returned",): returned}):
            new |= {(id(value), contents): (value, path, None) for contents in contents_of(value)}
        for (_, contents), (value, path, before) in (new | self.before).items():
            after = contents.read(value)
            if before is None or not contents.is_same(before, after):
                path = new.get((id(value), contents), (None, path))[1]
                found.append(Change(value, contents, path, before, after))
        return found

    def restore(self) -> list[str]:
        """Put every container back to the moment of the snapshot; name those that cannot be."""
        stuck = []
        for (_, contents), (value, path, before) in self.before.items():
            if not contents.is_same(contents.read(value), before):
                contents.write(value, before)
                if contents is ITERATOR and not contents.is_same(contents.read(value), before):
                    stuck.append(path_text(path))
        return stuck

    def forget_but(self, changes: list[Change]) -> None:
        """Let go of the contents of everything that is not among the changes."""
        kept = {(id(c.container), c.contents) for c in changes}
        self.before = {key: held for key, held in self.before.items() if key in kept}


def substitute(value: Any, is_leaf: Callable[[Any], bool], replace: Callable[[Any], Any]) -> Any:
    """Replace leaves in a value that is not itself a container: a leaf, a tuple, a registered pytree, a partial."""
    if is_leaf(value):
        return replace(value)
    if isinstance(value, functools.partial):
        inner = (value.args, value.keywords)
        new = substitute(inner, is_leaf, replace), {k: substitute(v, is_leaf, replace) for k, v in inner[1].items()}
        changed = new[0] is not inner or any(new[1][k] is not v for k, v in inner[1].items())
        return type(value)(value.func, *new[0][0], **new[1]) if changed else value
    if contents_of(value) or isinstance(value, OPAQUE_TYPES):
        return value
    leaves, tree = jax.tree.flatten(value, is_leaf=lambda x: bool(contents_of(x)))
    if (len(leaves) == 1 and leaves[0] is value) or not any(is_leaf(x) for x in leaves):
        return value
    return jax.tree.unflatten(tree, [replace(x) if is_leaf(x) else x for x in leaves])


def find_leaves(value: Any, is_leaf: Callable[[Any], bool]) -> list[Any]:
    """List the leaves that ``substitute`` would replace, in its order."""
    found: list[Any] = []

    def note(leaf: Any) -> Any:
        found.append(leaf)
        return leaf

    substitute(value, is_leaf, note)
    return found


def map_contents(held: Any, change: Callable[[Any], Any]) -> Any:
    """Apply a function to every direct child of contents."""
    if isinstance(held, dict):
        return {k: change(v) for k, v in held.items()}
    items = named(held).values()
    return with_items(held, map(change, items)) if items else held
