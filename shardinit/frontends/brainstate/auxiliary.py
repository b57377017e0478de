"""Auxiliary data of pytrees: what a class keeps beside its leaves, such as the indices of a sparse matrix."""

from collections.abc import Callable
from functools import partial
from typing import Any

from jax.tree_util import PyTreeDef, default_registry

from shardinit.frontends.brainstate.containers import Contents, Named, contents_of, named, with_items
from shardinit.frontends.brainstate.snapshot import find_leaves, substitute, walk
from shardinit.lane.trace import LaneTracer

Concrete = Callable[[LaneTracer, tuple], Any]


def without_tracers(tree: Any, concrete: Concrete, path: tuple = ()) -> Any:
    """Make a tree of the same classes, whose auxiliary data hold values in place of tracers."""
    node = tree.node_data()
    if node is None:
        return tree
    of, data = node
    children = tree.children()
    below = [without_tracers(child, concrete, path) for child in children]
    made = data if of is dict else _replaced(data, concrete, (*path, of.__name__))
    if made is data and all(a is b for a, b in zip(below, children, strict=True)):
        return tree
    return PyTreeDef.from_node_data_and_children(default_registry, (of, made), below)


def _replaced(value: Any, concrete: Concrete, path: tuple) -> Any:
    """Replace in immutable data by making new ones, in lists, dictionaries and objects in place."""
    if isinstance(value, tuple):
        items = [_replaced(item, concrete, (*path, n)) for n, item in enumerate(value)]
        if all(a is b for a, b in zip(items, value, strict=True)):
            return value
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if not contents_of(value):
        return substitute(value, _is_tracer, lambda tracer: concrete(tracer, path))
    for inner, held in list(walk({path: value})):
        for contents in contents_of(held):
            _replace_in_place(held, contents, concrete, inner)
    return value


def _replace_in_place(value: Any, contents: Contents, concrete: Concrete, path: tuple) -> None:
    held = contents.read(value)
    traced = {name for name, part in named(held).items() if find_leaves(part, _is_tracer)}
    changed = {
        name: substitute(part, _is_tracer, partial(_at, concrete, (*path, name)))
        for name, part in named(held).items()
        if name in traced
    }
    if changed and isinstance(contents, Named):
        contents.change(value, {}, changed)
    elif changed:
        contents.write(value, with_items(held, (changed.get(n, v) for n, v in named(held).items())))


def _at(concrete: Concrete, path: tuple, tracer: LaneTracer) -> Any:
    return concrete(tracer, path)


def _is_tracer(value: Any) -> bool:
    return isinstance(value, LaneTracer)
