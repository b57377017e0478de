"""What the planner sees of a state: names, shapes and sizes, no arrays."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from shardinit.wording import NOT_HELD

MOST_ELEMENTS = 2**63 - 1  # along one axis

Kind = Literal["new", "rewritten", "unbatched", "attribute"]
Callback = Literal["no", "pure", "effectful"]


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

    @property
    def name(self) -> str:
        """The path as text, as rules write it: ``layers/0/weight``."""
        return "/".join(self.path) or NOT_HELD

    def __str__(self) -> str:
        leaves = ", ".join(map(str, self.leaves))
        return f"{self.path or self.name} ({self.state_class}{', ' if leaves else ''}{leaves})"


@dataclass(frozen=True, slots=True)
class Bytes:
    """A number of bytes that grows with the lanes of a device: ``lane`` for each, ``shared`` once."""

    lane: int = 0
    shared: int = 0

    def __add__(self, other: "Bytes") -> "Bytes":
        return Bytes(self.lane + other.lane, self.shared + other.shared)

    def __sub__(self, other: "Bytes") -> "Bytes":
        return Bytes(self.lane - other.lane, self.shared - other.shared)

    @staticmethod
    def total(parts: Iterable["Bytes"]) -> "Bytes":
        """Add up."""
        parts = list(parts)
        return Bytes(sum(p.lane for p in parts), sum(p.shared for p in parts))


@dataclass(frozen=True, slots=True)
class PieceMemory:
    """Temporaries of a piece by platform: moments of its run, each the worst for some number of lanes.

    ``apart`` is for a CPU where what rounds by its place is computed in loops of its own, so that nothing is fused
    with it. ``tpu_scalar`` is scratch of the scalar core in bytes: it does not add to the others, which lie elsewhere,
    and a single lane takes a quarter more of it.
    """

    cpu: tuple[Bytes, ...] = ()
    gpu: tuple[Bytes, ...] = ()
    tpu: tuple[Bytes, ...] = ()
    apart: tuple[Bytes, ...] = ()
    tpu_scalar: int = 0

    def peak(self, platform: str, lanes: int) -> int:
        """Bytes of temporaries for that many lanes at once, on ``cpu``, ``gpu`` or ``tpu``, or on a CPU ``apart``."""
        most = max((m.lane * lanes + m.shared for m in getattr(self, platform)), default=0)
        return most if platform != "tpu" else max(most, self.tpu_scalar if lanes > 1 else self.tpu_scalar * 5 // 4)


@dataclass(frozen=True, slots=True)
class PieceSpec:
    """One piece of the lane program as the planner sees it.

    Attributes
    ----------
    structure
        Digest of its structure: pieces of one structure and placement are one compiled program. Empty if unknown.
    leaves
        Indices of the leaves that it makes, counted over all states in order.
    makes
        Values that it hands on to later pieces, or that a check reads: a number and a description.
    reads
        Numbers of the values that it takes from earlier pieces.
    memory
        Its temporaries.
    splittable
        Whether single lanes can be computed in parts (no factorization, sort or loop in it).
    sliceable
        Whether it can run in slices of lanes: no collective over the lanes in it, no keys or weak types made, nothing
        that is not known.
    local
        Whether it runs once, on the default device alone, before those that run on the mesh.
    calls_back
        Whether it calls the host, and whether that does more than return a value (``plan/callbacks.py``).
    elements
        Elements of one lane of each array that a CPU may round otherwise in parts (``plan/rounding.py``).
    shared_elements
        Elements of such arrays that all lanes share.
    rows
        Lengths of the last axis of one lane's arrays of floats, if some may round by the loop around them; 1 for such
        a number.
    fused_rows, chained
        Whether several operations may round so, and lengths of what eager JAX makes in one loop with others
        (``lane/rounding.py``).
    never_even
        Whether a CPU rounds parts otherwise, whatever their number of elements.
    never_exact
        Whether a last bit can differ from eager brainstate's wherever it is computed in a larger program.
    constants
        Arrays from outside that it takes: a number, the same for the same array, and a description.
    aligned
        Of each of these, whether its axes are those of every leaf, and it is read number by number.
    table_bytes
        Bytes of its row in the tables of its program: numbers of keys, and literals.
    all_lanes
        Whether a lane's values depend on the other lanes, so that every device computes all of them.
    """

    structure: str
    leaves: tuple[int, ...]
    makes: tuple[tuple[int, LeafSpec], ...] = ()
    reads: tuple[int, ...] = ()
    memory: PieceMemory = PieceMemory()
    splittable: bool = True
    sliceable: bool = True
    local: bool = False
    constants: tuple[tuple[int, LeafSpec], ...] = ()
    aligned: tuple[bool, ...] = ()
    table_bytes: int = 0
    elements: tuple[int, ...] = ()
    shared_elements: tuple[int, ...] = ()
    rows: tuple[int, ...] = ()
    fused_rows: tuple[int, ...] = ()
    chained: bool = False
    never_even: bool = False
    never_exact: bool = False
    all_lanes: bool = False
    calls_back: Callback = "no"


def leaf_spec(aval, by_lane: bool = True, on_host: bool = False, wish: tuple[str | None, ...] = ()) -> LeafSpec:
    """Describe an abstract value."""
    return LeafSpec(
        shape=tuple(aval.shape),
        dtype=str(aval.dtype) if not isinstance(aval.dtype, np.dtype) else aval.dtype.name,
        itemsize=aval.dtype.itemsize,
        weak_type=bool(getattr(aval, "weak_type", False)),
        by_lane=by_lane,
        on_host=on_host,
        wish=wish,
    )
