"""Which axis a state's lanes go to: the caller's filters, in the documented order of priority."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from brainstate.util.filter import Everything, to_predicate

from shardinit.errors import ArgumentTypeError, AxisAssignmentError
from shardinit.frontends.brainstate.private_brainstate import INIT_NO_BATCHING, NonBatchState
from shardinit.spec.states import StateSpec
from shardinit.wording import kind_of

Predicate = Callable[[tuple, Any], bool]


@dataclass(frozen=True, slots=True)
class AxisFilters:
    """The caller's ``state_out_axes``, normalized.

    Attributes
    ----------
    unbatched
        Predicate of the states on axis None.
    declared
        Axis and predicate in the order of the caller; a catch-all on axis 0 is left out, as it is the default.
    order
        Every axis that can occur, None first, as the keys of the returned dictionary are ordered.
    """

    unbatched: Predicate
    declared: tuple[tuple[int, Predicate], ...]
    order: tuple[int | None, ...]

    def axis_of(self, path: tuple[str, ...], state: Any) -> int | None:
        """Find the axis of a state.

        Raises
        ------
        AxisAssignmentError
            If the filters of two declared axes match it.
        """
        if self.unbatched(path, state):
            return None
        axes = [axis for axis, predicate in self.declared if predicate(path, state)]
        if len(axes) > 1:
            raise AxisAssignmentError(
                f"cannot assign {path or '(a state that the module does not hold)'} ({type(state).__name__}) "
                f"to one axis: the filters of axis {axes[0]} and of axis {axes[1]} both match it. "
                f"Narrow one of them in state_out_axes, or leave the filter of axis 0 out: it is the default."
            )
        return axes[0] if axes else 0


def _predicate(the_filter: Any) -> Predicate:
    try:
        return to_predicate(the_filter)
    except TypeError:
        raise ArgumentTypeError(
            f"state_out_axes has the filter {the_filter!r}, {kind_of(the_filter)}. Pass a dictionary of axis to "
            "filter, such as {1: brainstate.ParamState}: a State class, a tag, `...`, or a function of path and state."
        ) from None


def axis_filters(state_out_axes: Any) -> AxisFilters:
    """Normalize ``state_out_axes``: None, one filter (axis 0), or a dictionary of axis to filter."""
    if state_out_axes is None:
        state_out_axes = {}
    if not isinstance(state_out_axes, dict):
        state_out_axes = {0: state_out_axes}
    for axis in state_out_axes:
        if axis is not None and (isinstance(axis, bool) or not isinstance(axis, (int, np.integer))):
            raise ArgumentTypeError(
                f"state_out_axes has the key {axis!r} ({type(axis).__name__}). "
                "A key is an int axis or None; the value is the filter: {1: brainstate.ParamState}."
            )
    user = {axis: _predicate(f) for axis, f in state_out_axes.items()}
    none_predicates = [to_predicate(NonBatchState), to_predicate(INIT_NO_BATCHING)]
    if None in user:
        none_predicates.insert(0, user[None])
    declared = tuple(
        (axis, p) for axis, p in user.items() if axis is not None and not (axis == 0 and isinstance(p, Everything))
    )
    return AxisFilters(
        unbatched=lambda path, state: any(p(path, state) for p in none_predicates),
        declared=declared,
        order=tuple(dict.fromkeys([None, *(a for a in user if a is not None and a != 0), 0])),
    )


def check_axis(spec: StateSpec) -> None:
    """Refuse an axis that a leaf does not have once it is batched."""
    for leaf in spec.leaves:
        rank = len(leaf.shape) + 1
        if spec.out_axis is not None and not -rank <= spec.out_axis < rank:
            raise AxisAssignmentError(
                f"cannot put the lanes of {spec} on axis={spec.out_axis}: a leaf {leaf} has rank={rank - 1} "
                f"per lane, so the batched leaf has axes {-rank} to {rank - 1}. "
                f"Use an axis in that range for this state, such as axis {min(rank - 1, max(spec.out_axis, 0))}."
            )
