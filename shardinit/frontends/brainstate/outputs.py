"""What init leaves: new states, states that it wrote, traced arrays in attributes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
from brainstate import State

from shardinit.errors import ArgumentTypeError, LaneValueError, RewrittenStateError
from shardinit.frontends.brainstate.auxiliary import without_tracers
from shardinit.frontends.brainstate.axes import AxisFilters
from shardinit.frontends.brainstate.containers import named
from shardinit.frontends.brainstate.snapshot import Change, Snapshot, find_leaves
from shardinit.lane.describe import leaf_spec
from shardinit.lane.equations import Atom, as_atom, is_on_host
from shardinit.lane.trace import LaneTrace, LaneTracer
from shardinit.spec.options import Rewritten
from shardinit.spec.states import Kind, StateSpec
from shardinit.wording import key_text, kind_of, listed, path_text


@dataclass(frozen=True, slots=True)
class Found:
    """A state that init leaves, or an array in an attribute.

    Attributes
    ----------
    spec
        Its description.
    atoms
        One per leaf.
    state
        The State object; None for an attribute.
    tree
        How the leaves make up the value.
    """

    spec: StateSpec
    atoms: tuple[Atom, ...]
    state: State | None
    tree: Any


def outputs_of(
    new: Sequence[tuple[State, Any]],
    written: Sequence[tuple[State, Any]],
    changes: list[Change],
    snapshot: Snapshot,
    trace: LaneTrace,
    filters: AxisFilters,
    rewritten: Rewritten,
    returned: Any = None,
) -> list[Found]:
    """States in the order of their creation, then those that were written, then attributes."""
    paths = snapshot.state_paths | {id(c.container): c.path for c in changes if isinstance(c.container, State)}
    found = [_state_output(s, value, "new", paths, filters) for s, value in new]
    old = [_state_output(s, value, "rewritten", paths, filters) for s, value in written]
    attributes = _attribute_outputs(changes, trace, returned)
    if rewritten == "error":
        _check_unbatched(old + [o for o in attributes if snapshot.is_in_a_state(o.spec.path)])
        old = [replace(o, spec=replace(o.spec, kind="unbatched", out_axis=None)) for o in old]
    return found + old + attributes


def _state_output(state: State, value: Any, kind: Kind, paths: Mapping[int, tuple], filters: AxisFilters) -> Found:
    path = paths.get(id(state), ())
    leaves, tree = jax.tree.flatten(value)
    tree = without_tracers(tree, lambda tracer, place: _auxiliary_value(tracer, state, path, place))
    atoms = tuple(leaf.atom if isinstance(leaf, LaneTracer) else _outside(leaf, state, path) for leaf in leaves)
    spec = StateSpec(
        path=tuple(map(key_text, path)),
        state_class=type(state).__name__,
        leaves=tuple(
            leaf_spec(a.aval, a.by_lane, is_on_host(a), _taken_wish(leaf))
            for a, leaf in zip(atoms, leaves, strict=True)
        ),
        out_axis=filters.axis_of(path, state),
        tags=tuple(sorted(state.tag or ())),
        kind=kind,
    )
    return Found(spec, atoms, state, tree)


def _taken_wish(leaf: Any) -> tuple[str | None, ...]:
    """What init wants of the placement of an array; from here on it is the state's, and named with that if at all."""
    wish = leaf.wish if isinstance(leaf, LaneTracer) else None
    if wish is None:
        return ()
    wish.of_state = True
    return wish.axes


def _outside(leaf: Any, state: State, path: tuple) -> Any:
    try:
        return as_atom(leaf)
    except TypeError:
        raise ArgumentTypeError(
            f"cannot keep {path_text(path)} ({type(state).__name__}): it holds {kind_of(leaf)}, which is not an array. "
            "Keep it in an attribute of the module, outside of any State."
        ) from None


def _auxiliary_value(tracer: LaneTracer, state: State, path: tuple, place: tuple) -> Any:
    """Value of a tracer in the auxiliary data of a state's pytree, which has no lanes."""
    name, where = path_text(path), ".".join(map(key_text, place))
    if tracer.atom.on_axis:
        raise LaneValueError(
            f"cannot keep {tracer.aval.str_short()} of {where} in {name} ({type(state).__name__}): its value differs "
            "by lane, and it is in the auxiliary data of a pytree, which has no lanes. Make it a leaf of that class "
            "(return it with the children in tree_flatten), or derive it from something that all lanes share."
        )
    return tracer._trace.concrete(tracer, f"{where} in {name} (auxiliary data)")


def _attribute_outputs(changes: list[Change], trace: LaneTrace, returned: Any) -> list[Found]:
    """One output per traced array that init left in an attribute outside of any State, or returned."""
    found: dict[int, Found] = {}

    def is_traced(value: Any) -> bool:
        return isinstance(value, LaneTracer) and value._trace is trace

    places = [((*c.path, name), value) for c in changes for name, value in named(c.after).items()]
    for path, value in [*places, (("returned",), returned)]:
        for tracer in find_leaves(value, is_traced):
            atom = tracer.atom
            leaf = leaf_spec(atom.aval, atom.by_lane, is_on_host(atom))
            out_axis = 0 if atom.by_lane else None
            spec = StateSpec(tuple(map(key_text, path)), "array", (leaf,), out_axis, (), "attribute")
            found.setdefault(id(atom), Found(spec, (atom,), None, None))
    return list(found.values())


def _check_unbatched(outputs: list[Found]) -> None:
    """Refuse what differs by lane in states that existed before."""
    batched = [o.spec for o in outputs if any(leaf.by_lane for leaf in o.spec.leaves)]
    if batched:
        raise RewrittenStateError(
            f"cannot write {batched[0]}: it is a pre-existing state, and init writes a value that differs by lane "
            f"into it (states of this kind={len(batched)}: {listed([s.name for s in batched])}). Nothing was changed. "
            'Create the state in init_state, or batch it as well by shard_new_states(..., rewritten="batch").'
        )


def check_shared(output: Found) -> None:
    """Refuse a state on axis None whose value differs by lane."""
    if output.spec.out_axis is None and any(leaf.by_lane for leaf in output.spec.leaves):
        raise LaneValueError(
            f"cannot keep one value of {output.spec} for all lanes: it is on axis None, but its value differs by "
            "lane (it draws from a RandomState whose key is split over the lanes). Give it an axis in "
            "state_out_axes, such as {0: ...}, or draw from a fixed key, jax.random.key(0)."
        )
