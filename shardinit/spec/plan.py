"""The plan: where every array goes, in which order, under which peak, and why. Pure data."""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from shardinit.spec.codec import STRICT, from_json, to_json
from shardinit.spec.options import Numerics, Remainder, Strategy
from shardinit.spec.states import StateSpec
from shardinit.spec.topology import Topology

Rounding = Literal["same", "apart", "whole", "uneven"]
Source = Literal["fresh"]  # init makes it; what a checkpoint holds will be another


@dataclass(frozen=True, slots=True)
class LeafPlan:
    """Where one array goes.

    Attributes
    ----------
    shape
        Shape of all lanes together.
    partition_spec
        Mesh axis (or None) per array axis.
    bytes_per_device
        Bytes of one device's shard, without what a layout adds.
    source
        Where its numbers come from.
    """

    shape: tuple[int, ...]
    partition_spec: tuple[str | None, ...]
    bytes_per_device: int
    source: Source = "fresh"
    __pydantic_config__ = STRICT


@dataclass(frozen=True, slots=True)
class StatePlan:
    """How one state is made: strategy, placement of its leaves, and why, in a sentence."""

    spec: StateSpec
    strategy: Strategy
    leaves: tuple[LeafPlan, ...]
    reason: str
    __pydantic_config__ = STRICT

    @property
    def bytes_per_device(self) -> int:
        """Bytes that one device holds of this state."""
        return sum(leaf.bytes_per_device for leaf in self.leaves)


@dataclass(frozen=True, slots=True)
class Step:
    """Equal pieces that run one after the other, and the memory of one device meanwhile.

    Attributes
    ----------
    pieces
        Their numbers, in the order in which they run.
    state
        Name of the first state that the first one makes.
    held
        Bytes held before: what earlier steps made, and the keys.
    made
        Bytes that they add.
    temporaries
        Bytes that one piece needs beside its outputs, in slices if there are any.
    peak
        The most that is held at once.
    slices
        Into how many slices the lanes of a device are cut, one after the other.
    constants
        Most bytes of arrays from outside (that init closes over) that are on the device meanwhile, beside the others.
    rounding
        How the last bits of eager brainstate are kept. ``same``: they need nothing. ``apart``: each operation gets a
        loop of its own. ``whole``: besides, every device computes all lanes and keeps its part. ``uneven``: they are
        not, since the arrays are too large for that; last bits can differ.
    strategy
        How the pieces are computed: over the lanes of each device (``shard_map``), over all lanes on every device
        (``vmap``) or on one (``local``), partitioned by XLA (``gspmd``), or over the lanes of each device and then
        exchanged (``padded``).
    """

    pieces: tuple[int, ...]
    state: str
    held: int
    made: int
    temporaries: int
    peak: int
    slices: int = 1
    constants: int = 0
    rounding: Rounding = "same"
    strategy: Strategy = "vmap"
    __pydantic_config__ = STRICT


@dataclass(frozen=True, slots=True)
class Rejected:
    """A mesh that was considered: what it would have cost (None: it cannot be), and why it was not taken."""

    mesh_axes: tuple[tuple[str, int], ...]
    bytes_per_device: int | None
    peak_bytes: int | None
    reason: str
    __pydantic_config__ = STRICT


@dataclass(frozen=True, slots=True)
class InitPlan:
    """The whole plan: pure data, made without any device.

    Attributes
    ----------
    axis_size
        Number of lanes.
    topology
        The devices it was made for.
    mesh_axes
        Name and size of each mesh axis; empty on one device.
    lanes_axis
        The mesh axis that splits the lanes; None if nothing splits them.
    numerics
        ``exact`` or ``fused``.
    states
        One plan per state, in the order of the program's outputs.
    reason
        Why this mesh.
    remainder
        What was to be done with lanes that do not divide.
    padded_axis_size
        Number of lanes that are computed: more than ``axis_size`` where lanes are padded.
    memory_budget
        Bytes per device that the peak had to fit; None if there was no limit.
    steps
        The pieces in the order in which they run, with the memory over time.
    rejected
        Other meshes that were considered.
    of_program
        Whether the steps are those of a program; of specs alone each state is taken for one draw.
    digests
        What makes each state, as digests of the program it was planned for; none for specs alone.
    program
        The lane program, if it was planned from one; not part of the data.
    """

    axis_size: int
    topology: Topology
    mesh_axes: tuple[tuple[str, int], ...]
    lanes_axis: str | None
    numerics: Numerics
    states: tuple[StatePlan, ...]
    reason: str
    remainder: Remainder
    padded_axis_size: int
    memory_budget: int | None = None
    steps: tuple[Step, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    of_program: bool = False
    digests: tuple[str, ...] = ()
    program: Annotated[Any, "not serialized"] = field(default=None, compare=False, repr=False)
    unwritten = ("program",)
    __pydantic_config__ = STRICT

    @property
    def lane_shards(self) -> int:
        """Into how many parts the lanes are split."""
        return dict(self.mesh_axes).get(self.lanes_axis, 1) if self.lanes_axis else 1

    @property
    def mesh_devices(self) -> int:
        """Devices of the mesh; 1 without one."""
        return math.prod(size for _, size in self.mesh_axes)

    @property
    def idle_devices(self) -> int:
        """Devices of the topology that the mesh leaves out."""
        return self.topology.devices - self.mesh_devices if self.mesh_axes else 0

    @property
    def lanes_per_device(self) -> int:
        """Lanes that one device computes."""
        return self.padded_axis_size // self.lane_shards

    @property
    def bytes_per_device(self) -> int:
        """Bytes that one device holds when everything is there, attributes outside of States excluded."""
        return sum(s.bytes_per_device for s in self.states if s.spec.kind != "attribute")

    @property
    def peak_bytes(self) -> int:
        """Most bytes that one device holds at any moment: states, keys, temporaries, what layouts add."""
        return max((step.peak for step in self.steps), default=0)

    @property
    def constant_bytes(self) -> int:
        """Most bytes at any moment of arrays that init closes over, or of a device's parts of them."""
        return max((step.constants for step in self.steps), default=0)

    @property
    def fingerprint(self) -> str:
        """Digest of the plan, the same in every process."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """Serialize, with sorted keys and the version of the schema."""
        return to_json(self)

    @classmethod
    def from_json(cls, text: str) -> "InitPlan":
        """Read what ``to_json`` or ``shardinit plan --json`` wrote.

        Raises
        ------
        ArgumentError
            If it is not a plan, or of another version of the schema.

        Examples
        --------
        >>> from shardinit import LeafSpec, StateSpec, plan
        >>> state = StateSpec(("v",), "ShortTermState", (LeafSpec((8,), "float32", 4),))
        >>> p = plan([state], "cpu:8", axis_size=16)
        >>> InitPlan.from_json(p.to_json()) == p
        True
        """
        return from_json(text, cls, within="plan")  # a certificate or receipt may be beside it

    def certify(self, **options: Any) -> Any:
        """Compile every piece for the plan's topology, by its real compiler, and compare: ``shardinit.certify``."""
        from shardinit.certifier.certify import certify

        return certify(self, **options)

    def __str__(self) -> str:
        from shardinit.report.plan import plan_text
        from shardinit.report.terminal import for_terminal

        return for_terminal(plan_text(self))


def has_whole_lanes(states: Iterable[StatePlan], lanes_axis: str | None) -> bool:
    """Whether no single lane is split over devices."""
    return not any(
        name is not None
        and (name != lanes_axis or state.spec.out_axis is None or at != state.spec.out_axis % len(leaf.shape))
        for state in states
        for leaf in state.leaves
        for at, name in enumerate(leaf.partition_spec)
    )
