"""A second front end, as small as can be: a function of a key that returns a pytree. It knows no brainstate.

That planning, compiling, running and certifying need nothing else of a front end is what it is there to prove.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from shardinit.backend.private_jax import set_current_trace, trace_ctx
from shardinit.lane.describe import leaf_spec
from shardinit.lane.equations import as_atom, is_on_host
from shardinit.lane.program import LaneProgram, Output, Traced
from shardinit.lane.trace import LaneTrace, LaneTracer
from shardinit.spec.states import StateSpec


class Holder:
    """Holds a key and, once they are made, the arrays."""

    def __init__(self, key: jax.Array, tree: Any):
        self.key, self.tree, self.made = key, tree, None

    def keys(self) -> list[jax.Array]:
        return [self.key]

    def commit(self, values: Sequence[Any], next_keys: Sequence[jax.Array], *, again: bool = False) -> None:
        self.made = jax.tree.unflatten(self.tree, values)
        (self.key,) = next_keys

    def states_by_axis(self) -> dict[int | None, list[Any]]:
        return {}


def trace(function: Callable[[jax.Array], Any], key: jax.Array) -> Traced:
    """Trace a function of one lane's key."""
    lane = LaneTrace(trace_ctx.trace)
    aval = jax.core.ShapedArray(key.shape, key.dtype)
    own = lane.new_input(aval, random_index=0)
    with set_current_trace(lane):
        made = function(own)
    lane.is_over = True
    leaves, tree = jax.tree.flatten_with_path(made)
    outputs = []
    for path, leaf in leaves:
        atom = leaf.atom if isinstance(leaf, LaneTracer) else as_atom(leaf)
        described = leaf_spec(atom.aval, atom.by_lane, is_on_host(atom))
        names = tuple(str(getattr(key, "key", getattr(key, "idx", key))) for key in path)
        outputs.append(Output(StateSpec(names, "array", (described,), 0), (atom,)))
    program = LaneProgram(tuple(outputs), (own.atom,), tuple(lane.effectful))
    return Traced(program, Holder(key, tree))
