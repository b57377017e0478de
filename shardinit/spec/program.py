"""A traced program as the planner sees it: states, and the pieces that make them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from shardinit.spec.states import LeafSpec, StateSpec

Callback = Literal["no", "pure", "effectful"]


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
    with it. ``tpu_scalar`` is scratch of the scalar core in bytes: it does not add to the others, which are elsewhere,
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
    known
        Whether all of its primitives are in our tables.
    collective
        Whether it communicates over the lanes, by the name of their axis.
    sliceable
        Whether it can run in slices of lanes: no collective over the lanes in it, no keys or weak types made, nothing
        that is not known.
    local
        Whether it runs once, on the default device alone, before those that run on the mesh.
    calls_back
        Whether it calls the host, and whether that does more than return a value (``planner/callbacks.py``).
    elements
        Elements of one lane of each array that a CPU may round differently in parts (``planner/rounding.py``).
    shared_elements
        Elements of such arrays that all lanes share.
    rows
        Lengths of the last axis of one lane's arrays of floats, if some may round by the loop around them; 1 for such
        a number.
    fused_rows, chained
        Whether several operations may round so, and lengths of what eager JAX makes in one loop with others
        (``lane/rounding.py``).
    never_even
        Whether a CPU rounds parts differently, whatever their number of elements.
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
    known: bool = True
    collective: bool = False
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


@dataclass(frozen=True, slots=True)
class KeyTableSpec:
    """A table of keys that all pieces read: its rows, and the words (of 4 bytes) of one key."""

    rows: int
    words: int


@dataclass(frozen=True, slots=True)
class Cut:
    """A program cut into pieces, each after those that it takes values from, and the key tables that they read."""

    pieces: tuple[PieceSpec, ...]
    key_tables: tuple[KeyTableSpec, ...]


@dataclass(frozen=True, slots=True)
class ProgramSpec:
    """A traced program, or descriptions of states alone.

    Attributes
    ----------
    states
        One description per state, in the order of the program's outputs.
    whole, split
        Its pieces where single lanes stay whole on a device, and where some are split over devices. None: there are
        only the states.
    digests
        What makes each state, back to the keys: equal in every process that runs the same code.
    axis_name, axis_size
        Name of the mapped axis that collectives in it use, and the number of lanes that they see; None without.
    """

    states: tuple[StateSpec, ...]
    whole: Cut | None = None
    split: Cut | None = None
    digests: tuple[str, ...] = ()
    axis_name: str | None = None
    axis_size: int | None = None

    @classmethod
    def of_states(cls, states: Iterable[StateSpec]) -> "ProgramSpec":
        """Describe states that no program was traced for."""
        return cls(tuple(states))
