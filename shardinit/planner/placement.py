"""Placement: one state on one mesh. Strategy, PartitionSpec per leaf, and why."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from shardinit.errors import PlanError
from shardinit.planner.device_bytes import laid_out_bytes, platform_family
from shardinit.spec.options import OPEN, AskedStrategy, Rule, Strategy
from shardinit.spec.plan import InitPlan, LeafPlan, StatePlan
from shardinit.spec.states import LeafSpec, StateSpec
from shardinit.wording import counted, size_text

# A leaf with less than this per device is not worth splitting over `model`.
WORTH_SPLITTING_BYTES = 1 << 20

Shape = tuple[int, ...]
MeshAxes = Mapping[int, str | None]  # array axis -> the mesh axis that splits it


@dataclass(frozen=True, slots=True, eq=False)
class CandidateMesh:
    """A mesh, and what its axes are for.

    Attributes
    ----------
    axes
        Size of each axis.
    lanes
        The axis that splits the lanes, if any does.
    model
        The axis that splits single lanes, if any does.
    axis_size, padded
        Number of lanes, and how many are computed.
    strategy
        Asked of every batched state; ``auto`` leaves it open.
    platform
        Of its devices.
    worth_splitting
        Least bytes per device of a leaf that is split over ``model``.
    reason
        Why this mesh.
    made
        Whether the planner made it; else it is the caller's.
    """

    axes: dict[str, int]
    lanes: str | None
    model: str | None
    axis_size: int
    padded: int
    strategy: AskedStrategy
    platform: str
    worth_splitting: int
    reason: str
    made: bool

    @property
    def shards(self) -> int:
        """Into how many parts the lanes are split."""
        return self.axes[self.lanes] if self.lanes else 1

    @property
    def shares_lanes(self) -> bool:
        """Whether several devices compute the same lane, or lanes that are cut off."""
        return math.prod(self.axes.values()) > self.shards or self.padded > self.axis_size

    @property
    def mesh_axes(self) -> tuple[tuple[str, int], ...]:
        """Name and size of each axis."""
        return tuple(self.axes.items())


def mesh_of_plan(plan: InitPlan) -> CandidateMesh:
    """The mesh that a plan was made for, to plan the rest of it: nothing is left to choose."""
    return CandidateMesh(
        axes=dict(plan.mesh_axes),
        lanes=plan.lanes_axis,
        model=None,
        axis_size=plan.axis_size,
        padded=plan.padded_axis_size,
        strategy="auto",
        platform=platform_family(plan.topology.platform),
        worth_splitting=1,
        reason=plan.reason,
        made=False,
    )


def place_all(specs: Sequence[StateSpec], rules: Sequence[Rule | None], mesh: CandidateMesh) -> tuple[StatePlan, ...]:
    """Place every state; equal ones are decided once."""
    known: dict[tuple, tuple[Strategy, tuple[LeafPlan, ...], str]] = {}
    plans = []
    for spec, rule in zip(specs, rules, strict=True):
        key = (spec.leaves, spec.out_axis, spec.kind == "attribute", rule)
        if key not in known:
            known[key] = place(spec, rule, mesh)
        plans.append(StatePlan(spec, *known[key]))
    return tuple(plans)


def place(spec: StateSpec, rule: Rule | None, mesh: CandidateMesh) -> tuple[Strategy, tuple[LeafPlan, ...], str]:
    """Choose strategy and PartitionSpecs for one state, and say why."""
    whole = tuple(_leaf_plan(leaf, spec.out_axis, mesh, {}) for leaf in spec.leaves)
    if spec.kind == "attribute" and spec.out_axis is None:
        return "vmap", whole, "outside of any State and the same for all lanes: as an eager init leaves it"
    if not mesh.axes:
        if rule is not None and (
            rule.strategy in ("shard_map", "pmap", "gspmd") or any(map(_is_mesh_axis, rule.axes or ()))
        ):
            raise PlanError(
                f"rule {rule.text} cannot split {spec}: there is no mesh, just the default device. "
                "Pass a mesh, or remove the rule."
            )
        return "vmap", whole, "one device"
    if rule is not None and rule.replicate:
        return "vmap", whole, f"rule {rule.text}: every device holds all of it"
    strategy = mesh.strategy if rule is None or rule.strategy is None else rule.strategy
    if spec.out_axis is None:
        return _shared(spec, rule, mesh, whole)
    if strategy == "vmap":
        asked = "as asked" if rule is None else f"rule {rule.text}"
        return "vmap", whole, f"{asked}: every device holds every lane"
    if mesh.lanes is None and strategy in ("shard_map", "pmap"):
        raise _no_lanes(spec, rule, mesh)
    if rule is not None and rule.axes is not None:
        _check_rank(spec, rule, mesh)
    leaves = tuple(_batched(spec, leaf, rule, mesh, strategy) for leaf in spec.leaves)
    chosen = _strategy_of(spec, leaves, mesh, strategy)
    return chosen, leaves, _reason(spec, leaves, rule, mesh, chosen)


def _shared(
    spec: StateSpec, rule: Rule | None, mesh: CandidateMesh, whole: tuple[LeafPlan, ...]
) -> tuple[Strategy, tuple[LeafPlan, ...], str]:
    if rule is None and any(wished := [_wished(leaf, None, mesh, mesh.strategy) for leaf in spec.leaves]):
        leaves = tuple(_leaf_plan(leaf, None, mesh, names) for leaf, names in zip(spec.leaves, wished, strict=True))
        return "gspmd", leaves, "axis None: split as init asks"
    if rule is None or (rule.strategy is None and rule.axes is None):
        return "vmap", whole, "axis None: every device holds the one value"
    if rule.strategy in ("shard_map", "pmap") or (rule.axes and mesh.lanes is not None and mesh.lanes in rule.axes):
        raise PlanError(
            f"rule {rule.text} contradicts {spec}: out axis None, so it has no lanes that {mesh.lanes!r} could split. "
            "Put a rule with 'replicate' for it first, or give the state an axis."
        )
    if rule.axes is None:
        return "vmap", whole, "axis None: every device holds the one value"
    if any(leaf.on_host for leaf in spec.leaves):
        raise PlanError(
            f"rule {rule.text} cannot split {spec}: it is a NumPy or Python value, which all lanes share and which "
            "stays on the host. Make it by jax.numpy in init, or remove the rule."
        )
    _check_rank(spec, rule, mesh)
    leaves = tuple(_leaf_plan(leaf, None, mesh, _ruled(spec, leaf, rule, mesh)) for leaf in spec.leaves)
    split = any(any(leaf.partition_spec) for leaf in leaves)
    return ("gspmd" if split else "vmap"), leaves, f"rule {rule.text}"


def _batched(spec: StateSpec, leaf: LeafSpec, rule: Rule | None, mesh: CandidateMesh, strategy: str) -> LeafPlan:
    shape = leaf.batched_shape(spec.out_axis, mesh.axis_size)
    lanes_at = cast(int, spec.out_axis) % len(shape)
    has_axes = rule is not None and rule.axes is not None
    ruled: Mapping[int, str | None] = (
        _ruled(spec, leaf, cast(Rule, rule), mesh) if has_axes else _wished(leaf, spec.out_axis, mesh, strategy)
    )
    names = {**ruled}
    if mesh.padded != mesh.axis_size:
        if mesh.lanes not in names.values():
            names |= _padded(leaf, shape, {*ruled, lanes_at}, mesh)
        return _leaf_plan(leaf, spec.out_axis, mesh, names)
    if mesh.lanes is not None and mesh.lanes not in names.values():
        names.setdefault(lanes_at, mesh.lanes)
    fixed = set(ruled) | {lanes_at}
    if mesh.model is not None and strategy in ("auto", "gspmd") and mesh.model not in names.values():
        size = _shard_bytes(shape, leaf, names, mesh, "cpu")
        free = [a for a, n in enumerate(shape) if a not in fixed and n and n % mesh.axes[mesh.model] == 0]
        if free and mesh.axes[mesh.model] > 1 and size >= mesh.worth_splitting:
            names[_cheapest(shape, leaf, names, free, mesh.model, mesh)] = mesh.model
    return _leaf_plan(leaf, spec.out_axis, mesh, names)


def _cheapest(
    shape: Shape, leaf: LeafSpec, names: MeshAxes, free: Sequence[int], name: str, mesh: CandidateMesh
) -> int:
    """Choose the axis that leaves the smallest share, the longest and last of equals."""
    return min(free, key=lambda a: (_shard_bytes(shape, leaf, {**names, a: name}, mesh, mesh.platform), -shape[a], -a))


def _padded(leaf: LeafSpec, shape: Shape, fixed: set[int], mesh: CandidateMesh) -> dict[int, str | None]:
    """Find another axis for the devices that compute padded lanes, which the kept lanes don't divide; else none."""
    lanes = cast(str, mesh.lanes)
    free = [a for a, n in enumerate(shape) if a not in fixed and n and n % mesh.axes[lanes] == 0]
    return {_cheapest(shape, leaf, {}, free, lanes, mesh): lanes} if free else {}


def _check_rank(spec: StateSpec, rule: Rule, mesh: CandidateMesh) -> None:
    """Refuse a rule with more axes than any array of the state; arrays with fewer axes are left to the planner."""
    axes = len(rule.axes or ())
    shapes = [leaf.batched_shape(spec.out_axis, mesh.axis_size) for leaf in spec.leaves]
    if axes > (most := max(map(len, shapes), default=0)):
        described = ", ".join(f"{leaf.dtype}{list(shape)}" for leaf, shape in zip(spec.leaves, shapes, strict=True))
        raise PlanError(
            f"rule {rule.text} does not fit {spec}: it names {axes} array axes, {described or 'it'} has {most}. "
            "Name one mesh axis per array axis, the lanes included, or fewer."
        )


def _ruled(spec: StateSpec, leaf: LeafSpec, rule: Rule, mesh: CandidateMesh) -> dict[int, str | None]:
    """Check what a rule says of one leaf: array axis to mesh axis, or None."""
    shape = leaf.batched_shape(spec.out_axis, mesh.axis_size)
    axes = rule.axes or ()
    described = f"{leaf.dtype}{list(shape)}"
    if len(axes) > len(shape):  # another leaf of the state has as many axes
        return {}
    for axis, name in enumerate(axes):
        if not _is_mesh_axis(name):
            continue
        if name not in mesh.axes:
            raise PlanError(
                f"rule {rule.text} names the mesh axis {name!r} for {spec}, but the mesh has "
                f"{', '.join(f'{n}={s}' for n, s in mesh.axes.items())}. Name one of these, or pass a mesh with "
                "that axis."
            )
        if mesh.made and mesh.axes[name] == 1 and (spec.out_axis is None or axis != spec.out_axis % len(shape)):
            raise PlanError(
                f"rule {rule.text} splits nothing of {spec}: mesh axis {name!r}=1 where axis {axis} of {described} has "
                f"size={shape[axis]}. Split another axis, or use None for this one."
            )
        if shape[axis] % mesh.axes[cast(str, name)]:
            raise PlanError(
                f"rule {rule.text} does not divide {spec}: axis {axis} of {described} has size={shape[axis]}, mesh "
                f"axis {name!r}={mesh.axes[cast(str, name)]}. Split another axis, or use None for this one."
            )
    return {axis: name for axis, name in enumerate(axes) if name != OPEN}


def _wished(leaf: LeafSpec, out_axis: int | None, mesh: CandidateMesh, strategy: str) -> dict[int, str]:
    """Array axis to mesh axis as init asks, if the caller's mesh has these axes, they divide and no lanes use them."""
    if strategy not in ("auto", "gspmd"):
        return {}
    shape = leaf.batched_shape(out_axis, mesh.axis_size)
    names = wished_axes(leaf, out_axis)
    fits = all(n in mesh.axes and n != mesh.lanes and shape[at] % mesh.axes[n] == 0 for at, n in names.items())
    return names if fits and not (mesh.made or leaf.on_host or mesh.padded != mesh.axis_size) else {}


def wished_axes(leaf: LeafSpec, out_axis: int | None) -> dict[int, str]:
    """Axes of the whole array, lanes included, that init wants to be split, and the mesh axis of each."""
    lanes_at = len(leaf.shape) if out_axis is None else out_axis % (len(leaf.shape) + 1)
    return {at + (at >= lanes_at): name for at, name in enumerate(leaf.wish) if name is not None}


def _is_mesh_axis(axis: str | None) -> bool:
    """Whether an axis of a rule names an axis of the mesh."""
    return axis not in (None, OPEN)


def _leaf_plan(leaf: LeafSpec, out_axis: int | None, mesh: CandidateMesh, names: MeshAxes) -> LeafPlan:
    shape = leaf.batched_shape(out_axis, mesh.axis_size)
    spec = tuple(names.get(axis) for axis in range(len(shape)))
    size = 0 if leaf.on_host and out_axis is None else _shard_bytes(shape, leaf, names, mesh, "cpu")
    return LeafPlan(shape, spec, size)


def _shard_bytes(shape: Shape, leaf: LeafSpec, names: MeshAxes, mesh: CandidateMesh, platform: str) -> int:
    shard = [n // mesh.axes[name] if (name := names.get(a)) else n for a, n in enumerate(shape)]
    return laid_out_bytes(shard, leaf.itemsize, platform)


def _strategy_of(spec: StateSpec, leaves: Sequence[LeafPlan], mesh: CandidateMesh, asked: str) -> Strategy:
    if mesh.padded != mesh.axis_size:  # the padded lanes are computed by parts, whatever is made of them
        return "gspmd"
    if asked in ("gspmd", "pmap"):
        return cast(Strategy, asked)
    by_lanes = [
        mesh.lanes is not None
        and leaf.partition_spec[cast(int, spec.out_axis) % len(leaf.shape)] == mesh.lanes
        and sum(a is not None for a in leaf.partition_spec) == 1
        for leaf in leaves
    ]
    if mesh.lanes is not None and all(by_lanes):
        return "shard_map"
    return "gspmd" if any(any(leaf.partition_spec) for leaf in leaves) else "vmap"


def _reason(spec: StateSpec, leaves: Sequence[LeafPlan], rule: Rule | None, mesh: CandidateMesh, strategy: str) -> str:
    asked = any(_wished(leaf, spec.out_axis, mesh, strategy) for leaf in spec.leaves)
    said = f"rule {rule.text}; " if rule is not None else "as init asks; " if asked else ""
    lanes = mesh.padded // mesh.shards
    if mesh.padded != mesh.axis_size:
        said += f"{counted(mesh.padded, 'lane')} computed, {mesh.padded - mesh.axis_size} of them cut off; "
        if not any(any(leaf.partition_spec) for leaf in leaves):
            whole = size_text(sum(leaf.bytes_per_device for leaf in leaves))
            return f"{said}no other axis divides by {mesh.shards}, so every device holds all of it, {whole}"
    if strategy in ("shard_map", "pmap"):
        copies = math.prod(mesh.axes.values()) // mesh.shards
        small = f"; {copies} devices hold the same, it is not worth splitting or does not divide" if copies > 1 else ""
        return f"{said}{counted(lanes, 'lane')} per device, no communication{small}"
    if strategy == "vmap":
        return f"{said}the lanes fit no mesh axis, and splitting them another way is not worth it or does not divide"
    parts = []
    for leaf in leaves:
        for axis, name in enumerate(leaf.partition_spec):
            if name is not None and (name != mesh.lanes or axis != cast(int, spec.out_axis) % len(leaf.shape)):
                parts.append(f"`{name}`={mesh.axes[name]} splits axis {axis} of {leaf.shape[axis]}")
    by_lanes = any(leaf.partition_spec[cast(int, spec.out_axis) % len(leaf.shape)] == mesh.lanes for leaf in leaves)
    lead = f"{mesh.shards} divide the lanes" if mesh.shards > 1 and by_lanes else ""
    return said + ", ".join([*([lead] if lead else []), *dict.fromkeys(parts)] or ["as asked"])


def _no_lanes(spec: StateSpec, rule: Rule | None, mesh: CandidateMesh) -> PlanError:
    sizes = ", ".join(f"{n}={s}" for n, s in mesh.axes.items())
    if mesh.strategy == "vmap" and rule is not None:
        return PlanError(
            f"rule {rule.text} contradicts strategy='vmap' for {spec}, which splits no lanes. Use strategy='auto', and "
            "('*', 'vmap') as the last rule."
        )
    return PlanError(
        f"rule {rule.text if rule else ''} cannot split the lanes of {spec}: "
        f"axis_size={mesh.axis_size} fits no axis of "
        f"the mesh {sizes}. Use another axis_size, or leave the strategy open."
    )


def aligned_spec(outputs: Iterable[tuple[int | None, Sequence[str | None]]]) -> tuple[str | None, ...]:
    """PartitionSpec of an array that has the axes of a lane, given the axis of the lanes and the spec of each output.

    Where they differ, there is none, and every device has the whole array.
    """
    found = {tuple(name for axis, name in enumerate(spec) if axis != lanes) for lanes, spec in outputs}
    return found.pop() if len(found) == 1 else ()
