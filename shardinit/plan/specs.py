"""What the planner sees of a state: names, shapes and sizes, no arrays."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

Kind = Literal["new", "rewritten", "attribute"]


@dataclass(frozen=True, slots=True)
class LeafSpec:
    """One array of a state's value, for one lane.

    Attributes
    ----------
    shape
        Shape of one lane.
    dtype
        Name of the dtype, ``key<fry>`` for typed keys.
    itemsize
        Bytes per element.
    weak_type
        Whether JAX treats the dtype as weak.
    by_lane
        Whether the value can differ from lane to lane.
    """

    shape: tuple[int, ...]
    dtype: str
    itemsize: int
    weak_type: bool = False
    by_lane: bool = True

    @property
    def lane_bytes(self) -> int:
        """Bytes of one lane."""
        return math.prod(self.shape) * self.itemsize

    def batched_shape(self, out_axis: int | None, axis_size: int) -> tuple[int, ...]:
        """Shape of all lanes together, with ``axis_size`` at ``out_axis`` (None: not batched)."""
        if out_axis is None:
            return self.shape
        axis = out_axis % (len(self.shape) + 1)
        return (*self.shape[:axis], axis_size, *self.shape[axis:])

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True, slots=True)
class StateSpec:
    """One state that init creates or writes, or an array that it leaves in an attribute.

    Attributes
    ----------
    path
        Where it is in the module, ``("layers", "0", "weight")``; empty if the module does not hold it.
    state_class
        Name of the State class, ``array`` for an attribute.
    tags
        Tags of the state, sorted.
    leaves
        The arrays of its value, in the order of ``jax.tree.leaves``.
    out_axis
        The axis of the lanes as the caller declared it; None if all lanes share the state.
    kind
        ``new``, ``rewritten`` (it existed before) or ``attribute`` (an array outside of any State).
    """

    path: tuple[str, ...]
    state_class: str
    leaves: tuple[LeafSpec, ...]
    out_axis: int | None = 0
    tags: tuple[str, ...] = ()
    kind: Kind = "new"

    @property
    def name(self) -> str:
        """The path as text."""
        return ".".join(self.path) or "(not held by the module)"

    def __str__(self) -> str:
        leaves = ", ".join(map(str, self.leaves))
        return f"{self.path or self.name} ({self.state_class}{', ' if leaves else ''}{leaves})"


def leaf_spec(aval, by_lane: bool = True) -> LeafSpec:
    """Describe an abstract value."""
    return LeafSpec(
        shape=tuple(aval.shape),
        dtype=str(aval.dtype) if not isinstance(aval.dtype, np.dtype) else aval.dtype.name,
        itemsize=aval.dtype.itemsize,
        weak_type=bool(getattr(aval, "weak_type", False)),
        by_lane=by_lane,
    )
