"""States and pieces as the planner sees them: names, shapes and sizes, no arrays."""

import math
from dataclasses import dataclass
from typing import Literal

from shardinit.spec.codec import STRICT
from shardinit.wording import NOT_HELD

MOST_ELEMENTS = 2**63 - 1  # along one axis

Kind = Literal["new", "rewritten", "unbatched", "attribute"]


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
    on_host
        Whether it is a NumPy or Python value: it stays one where all lanes share it, and takes no device memory.
    wish
        Mesh axis or None per axis of a lane, where init asks for a placement; followed where it fits the mesh.
    """

    shape: tuple[int, ...]
    dtype: str
    itemsize: int
    weak_type: bool = False
    by_lane: bool = True
    on_host: bool = False
    wish: tuple[str | None, ...] = ()
    __pydantic_config__ = STRICT

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
        ``new``, ``rewritten`` (it existed before), ``unbatched`` (it existed before and stays without lanes, in no
        group of the returned dictionary) or ``attribute`` (an array outside of any State).
    """

    path: tuple[str, ...]
    state_class: str
    leaves: tuple[LeafSpec, ...]
    out_axis: int | None = 0
    tags: tuple[str, ...] = ()
    kind: Kind = "new"
    __pydantic_config__ = STRICT

    @property
    def name(self) -> str:
        """The path as text, as rules write it: ``layers/0/weight``."""
        return "/".join(self.path) or NOT_HELD

    def __str__(self) -> str:
        leaves = ", ".join(map(str, self.leaves))
        return f"{self.path or self.name} ({self.state_class}{', ' if leaves else ''}{leaves})"
