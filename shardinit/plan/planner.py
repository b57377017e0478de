"""The planner: from descriptions of states and devices to a mesh, strategies and PartitionSpecs."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast, get_args

from shardinit.errors import ArgumentError, ArgumentTypeError, PlanError
from shardinit.plan.specs import LeafSpec, StateSpec
from shardinit.plan.topology import Topology

Strategy = Literal["vmap", "shard_map", "gspmd", "pmap"]
Numerics = Literal["exact", "fused"]

# A leaf with less than this per device is not worth splitting over `model`.
WORTH_SPLITTING_BYTES = 1 << 20


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
        Bytes of one device's shard.
    """

    shape: tuple[int, ...]
    partition_spec: tuple[str | None, ...]
    bytes_per_device: int


@dataclass(frozen=True, slots=True)
class StatePlan:
    """How one state is made: strategy, placement of its leaves, and why, in a sentence."""

    spec: StateSpec
    strategy: Strategy
    leaves: tuple[LeafPlan, ...]
    reason: str

    @property
    def bytes_per_device(self) -> int:
        """Bytes that one device holds of this state."""
        return sum(leaf.bytes_per_device for leaf in self.leaves)


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
    """

    axis_size: int
    topology: Topology
    mesh_axes: tuple[tuple[str, int], ...]
    lanes_axis: str | None
    numerics: Numerics
    states: tuple[StatePlan, ...]
    reason: str

    @property
    def lane_shards(self) -> int:
        """Into how many parts the lanes are split."""
        return dict(self.mesh_axes).get(self.lanes_axis, 1) if self.lanes_axis else 1

    @property
    def lanes_per_device(self) -> int:
        """Lanes that one device computes."""
        return self.axis_size // self.lane_shards

    @property
    def bytes_per_device(self) -> int:
        """Bytes that one device holds when everything is there, attributes outside of States excluded."""
        return sum(s.bytes_per_device for s in self.states if s.spec.kind != "attribute")

    @property
    def fingerprint(self) -> str:
        """Digest of the plan, the same in every process."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """Serialize, with sorted keys."""
        return json.dumps({"version": 1, **asdict(self)}, sort_keys=True)

    def __str__(self) -> str:
        from shardinit.plan.text import plan_text

        return plan_text(self)


def plan(
    program_or_specs: Any,
    topology: Topology,
    *,
    axis_size: int,
    strategy: str = "auto",
    numerics: str = "exact",
    lanes_axis: str | None = None,
) -> InitPlan:
    """Choose a mesh, and a strategy and PartitionSpec for every state. Pure: no device, no array.

    Parameters
    ----------
    program_or_specs
        A ``LaneProgram``, or the ``StateSpec`` of every state.
    topology
        The devices, and the caller's mesh if there is one.
    axis_size
        Number of lanes.
    strategy
        ``auto``, or one of ``vmap``, ``shard_map``, ``gspmd``, ``pmap`` for every batched state.
    numerics
        ``exact`` (bits of brainstate's eager ``vmap2_new_states``) or ``fused`` (XLA may fuse).
    lanes_axis
        Mesh axis of the caller's mesh that splits the lanes; found by itself if None.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If an argument cannot be right.
    PlanError
        If the lanes do not divide as the strategy needs.

    Examples
    --------
    >>> leaf = LeafSpec((100,), "float32", 4)
    >>> p = plan([StateSpec(("v",), "ShortTermState", (leaf,))], Topology("cpu", 8), axis_size=64)
    >>> p.states[0].strategy, p.states[0].leaves[0].partition_spec, p.bytes_per_device
    ('shard_map', ('lanes', None), 3200)
    """
    axis_size = check_axis_size(axis_size)
    if not isinstance(topology, Topology):
        raise ArgumentTypeError(
            f"topology is a {type(topology).__name__}. Pass a Topology, such as Topology.local() or Topology('cpu', 8)."
        )
    for name, value, known in (
        ("strategy", strategy, ("auto", *get_args(Strategy))),
        ("numerics", numerics, get_args(Numerics)),
    ):
        if value not in known:
            raise ArgumentError(f"{name}={value!r} is not known. Use one of {', '.join(map(repr, known))}.")
    specs = tuple(getattr(program_or_specs, "specs", program_or_specs))
    axes, lanes, model, reason = _mesh(topology, axis_size, strategy, lanes_axis)
    states = tuple(_state_plan(s, axis_size, axes, lanes, model, strategy) for s in specs)
    return InitPlan(axis_size, topology, tuple(axes.items()), lanes, cast(Numerics, numerics), states, reason)


def check_axis_size(axis_size: Any) -> int:
    """Refuse what is no integer of at least 1, before anything is traced or cached."""
    index = getattr(type(axis_size), "__index__", None)
    if isinstance(axis_size, bool) or index is None or getattr(axis_size, "shape", ()) != ():
        raise ArgumentTypeError(
            f"axis_size={axis_size!r} is a {type(axis_size).__name__}. "
            "Pass the number of lanes as an int, such as axis_size=64."
        )
    if (size := int(index(axis_size))) < 1:
        raise ArgumentError(f"axis_size={size} has no lanes. Pass at least axis_size=1.")
    return size


def _mesh(topology: Topology, axis_size: int, strategy: str, wanted: str | None):
    """Mesh axes, the axis of the lanes, the axis that splits single lanes, and why."""
    if topology.mesh_axes == ():
        return {}, None, None, "the default device: nothing to split"
    if strategy == "vmap":
        axes = {"lanes": topology.devices} if topology.mesh_axes is None else dict(topology.mesh_axes)
        return axes, None, None, f"as asked: every one of {topology.devices} devices computes all lanes"
    if topology.mesh_axes is None:
        lanes = math.gcd(axis_size, topology.devices)
        model = topology.devices // lanes
        if model == 1:
            return {"lanes": lanes}, "lanes", None, f"{axis_size} lanes on {lanes} devices: {axis_size // lanes} each"
        if strategy in ("shard_map", "pmap"):
            raise _does_not_divide(strategy, axis_size, topology.devices)
        if lanes == 1 and axis_size > 1:
            split = (
                "no common factor, so the lanes are not split; large states are split over `model`, small ones copied"
            )
            reason = f"{axis_size} lanes on {topology.devices} devices: {split}. {_sizes(axis_size, model)} would split"
            return {"lanes": lanes, "model": model}, "lanes", "model", reason
        split = f"{lanes} divide the lanes, the other factor {model} is `model`"
        reason = f"{axis_size} lanes on {topology.devices} devices: {split}"
        return {"lanes": lanes, "model": model}, "lanes", "model", reason
    axes = dict(topology.mesh_axes)
    if wanted is not None and wanted not in axes:
        raise ArgumentError(f"the mesh has no axis {wanted!r}, only {', '.join(map(repr, axes)) or 'none'}.")
    candidates = [wanted] if wanted else ["lanes"] if "lanes" in axes else list(axes)
    lanes_axis = next((a for a in candidates if axis_size % axes[a] == 0), None)
    if lanes_axis is None and strategy in ("shard_map", "pmap"):
        raise _does_not_divide(strategy, axis_size, axes[candidates[0]])
    rest = [a for a, size in axes.items() if a != lanes_axis and a not in candidates[:1] and size > 1]
    model_axis = "model" if "model" in rest else rest[0] if rest else None
    mesh_text = " x ".join(f"{name}={size}" for name, size in axes.items())
    if lanes_axis is None:
        return axes, None, model_axis, f"mesh {mesh_text}: {axis_size} lanes fit no mesh axis, so they are not split"
    return (
        axes,
        lanes_axis,
        model_axis,
        f"mesh {mesh_text}: {axis_size // axes[lanes_axis]} lanes per part of `{lanes_axis}`",
    )


def _does_not_divide(strategy: str, axis_size: int, devices: int) -> PlanError:
    return PlanError(
        f"cannot split the lanes for strategy={strategy!r}: axis_size={axis_size} is no multiple of "
        f"devices={devices}. Use {_sizes(axis_size, devices)}, or strategy='auto'."
    )


def _sizes(axis_size: int, devices: int) -> str:
    """The nearest numbers of lanes that the devices divide."""
    below, above = axis_size // devices * devices, -(-axis_size // devices) * devices
    return " or ".join(f"axis_size={size}" for size in (below, above) if size)


def _state_plan(spec: StateSpec, axis_size: int, axes, lanes, model, strategy: str) -> StatePlan:
    if spec.kind == "attribute" and spec.out_axis is None:
        leaves = tuple(_leaf_plan(leaf, None, axis_size, axes, None, None) for leaf in spec.leaves)
        return StatePlan(
            spec, "vmap", leaves, "outside of any State and the same for all lanes: as an eager init leaves it"
        )
    if spec.out_axis is None or not axes:
        leaves = tuple(_leaf_plan(leaf, spec.out_axis, axis_size, axes, None, None) for leaf in spec.leaves)
        return StatePlan(
            spec, "vmap", leaves, "one device" if not axes else "axis None: every device holds the one value"
        )
    if strategy == "vmap":
        leaves = tuple(_leaf_plan(leaf, spec.out_axis, axis_size, axes, None, None) for leaf in spec.leaves)
        return StatePlan(spec, "vmap", leaves, "as asked: every device holds every lane")
    split = model if strategy in ("auto", "gspmd") else None
    leaves = tuple(_leaf_plan(leaf, spec.out_axis, axis_size, axes, lanes, split) for leaf in spec.leaves)
    if strategy == "pmap":
        return StatePlan(spec, "pmap", leaves, f"{axis_size // axes[lanes]} lanes on each of {axes[lanes]} devices")
    if strategy == "gspmd" or any(split and split in leaf.partition_spec for leaf in leaves):
        return StatePlan(spec, "gspmd", leaves, f"single lanes are split over `{split}`" if split else "as asked")
    if lanes is None:
        return StatePlan(spec, "vmap", leaves, "the lanes fit no mesh axis, and it is not worth splitting otherwise")
    return StatePlan(spec, "shard_map", leaves, f"{axis_size // axes[lanes]} lanes per device, no communication")


def _leaf_plan(leaf: LeafSpec, out_axis, axis_size: int, axes, lanes, model) -> LeafPlan:
    shape = leaf.batched_shape(out_axis, axis_size)
    spec: list[str | None] = [None] * len(shape)
    size = math.prod(shape) * leaf.itemsize
    if out_axis is not None and lanes is not None:
        spec[out_axis % len(shape)] = lanes
        size //= axes[lanes]
    if model is not None and size >= WORTH_SPLITTING_BYTES:
        free = [a for a, name in enumerate(spec) if name is None and shape[a] % axes[model] == 0 and shape[a]]
        free = [a for a in free if out_axis is None or a != out_axis % len(shape)]
        if free:
            spec[max(free, key=lambda a: shape[a])] = model
            size //= axes[model]
    return LeafPlan(shape, tuple(spec), size)
