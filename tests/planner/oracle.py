"""What the best plan is, by brute force over everything that can be chosen.

Written from the documented rules, and by itself: of the planner it takes the public data types and two tables, what
a piece needs whatever its size and what a normal draw needs times its widest leaf (per lane, once).
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shardinit import InitPlan, StateSpec, Topology
from shardinit.planner.memory_figures import DRAW_WORDS, PIECE_BYTES

WORTH_SPLITTING = 1 << 20  # bytes per device of a large leaf

Split = tuple[int | None, ...]  # per leaf, the array axis that `model` splits


@dataclass(frozen=True)
class Mesh:
    """One factorization of the devices: lanes x copies x model, or lanes x model with devices left idle."""

    lanes: int
    copies: int
    model: int
    idle: int = 0


@dataclass(frozen=True)
class Cost:
    """One state on one device: what stays, and what is needed meanwhile, fewest slices first."""

    kept: int
    temporaries: tuple[int, ...]


def divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]


def may_idle(topology: Topology, lanes: int) -> bool:
    """Whether devices can stay idle: not on TPU, and every node must have a device of the mesh."""
    return topology.platform != "tpu" and lanes >= topology.devices // (topology.fast or topology.devices)


def all_meshes(topology: Topology, axis_size: int) -> list[Mesh]:
    """Every mesh whose lanes divide: what it leaves over is idle, or holds copies where it cannot be."""
    devices, found = topology.devices, []
    for lanes in (d for d in divisors(axis_size) if d <= devices):
        for model in range(1, devices // lanes + 1):
            if may_idle(topology, lanes):
                found.append(Mesh(lanes, 1, model, devices - lanes * model))
            elif devices % (lanes * model) == 0:
                found.append(Mesh(lanes, devices // lanes // model, model))
    return found


def inside(topology: Topology, axis_size: int) -> list[Mesh]:
    """Those whose `model` divides a node or slice."""
    fast = topology.fast or topology.devices
    return [mesh for mesh in all_meshes(topology, axis_size) if fast % mesh.model == 0]


def used(mesh: Mesh) -> int:
    return mesh.lanes * mesh.model


def undominated(meshes: Sequence[Mesh]) -> list[Mesh]:
    """Leave out what another mesh with as many devices and a `model` that divides its own does better."""
    return [
        m
        for m in meshes
        if not any(
            m != o and m.model % o.model == 0 and used(o) >= used(m) and (o.model < m.model or o.lanes > m.lanes)
            for o in meshes
        )
    ]


def is_large(spec: StateSpec, at: int, topology: Topology, axis_size: int) -> bool:
    """Whether a leaf leaves 1 MiB or more on a device where the lanes alone are split as far as they go."""
    most = max(mesh.lanes for mesh in all_meshes(topology, axis_size) if mesh.model == 1)
    return spec.leaves[at].lane_bytes * (axis_size // most) >= WORTH_SPLITTING


def splits(spec: StateSpec, mesh: Mesh, axis_size: int, topology: Topology, *, large_only: bool) -> list[Split]:
    """Everything that `model` can split of a state, and leaving leaves whole."""
    if spec.out_axis is None:
        return [(None,) * len(spec.leaves)]
    options: list[list[int | None]] = []
    for at, leaf in enumerate(spec.leaves):
        shape = leaf.batched_shape(spec.out_axis, axis_size)
        axes: list[int | None] = [None]
        if mesh.model > 1 and leaf.lane_bytes and (not large_only or is_large(spec, at, topology, axis_size)):
            axes += [a for a, n in enumerate(shape) if a != spec.out_axis and n > 0 and n % mesh.model == 0]
        options.append(axes)
    return list(itertools.product(*options))


def kept(spec: StateSpec, split: Split, mesh: Mesh, axis_size: int) -> int:
    """Bytes that one device holds of a state."""
    size = 0
    for leaf, axis in zip(spec.leaves, split, strict=True):
        lanes = 1 if spec.out_axis is None else axis_size // mesh.lanes
        size += leaf.lane_bytes * lanes // (1 if axis is None else mesh.model)
    return size


def cost(spec: StateSpec, split: Split, mesh: Mesh, axis_size: int, platform: str) -> Cost:
    """What a state costs: one normal draw as wide as its widest leaf, in slices of the lanes if need be."""
    per_lane, once = DRAW_WORDS[platform]
    widest = max((leaf.lane_bytes for leaf in spec.leaves), default=0)
    own = kept(spec, split, mesh, axis_size)
    lanes = axis_size // mesh.lanes
    parts = 1 if None in split else mesh.model
    slices = divisors(lanes)
    return Cost(
        own,
        tuple((widest * per_lane * (lanes // s) + widest * once) // parts + (own // s if s > 1 else 0) for s in slices),
    )


def least_peak(costs: Sequence[Cost], platform: str, *, sliced: bool) -> int:
    """The lowest peak of all orders, and of all slicings."""
    needs = [min(c.temporaries) if sliced else c.temporaries[0] for c in costs]
    return min(
        peak_of([(costs[i].kept, needs[i]) for i in order], platform)
        for order in itertools.permutations(range(len(costs)))
    )


def peak_of(pieces: Sequence[tuple[int, int]], platform: str) -> int:
    """The peak of pieces (what stays, what is needed meanwhile) in that order."""
    held, peak = 0, 0
    for stays, meanwhile in pieces:
        held += stays
        peak = max(peak, held + meanwhile + PIECE_BYTES[platform])
    return peak


def efforts(topology: Topology, axis_size: int) -> list[tuple[list[Mesh], bool]]:
    """Meshes and whether only large leaves are split, in the order in which they may be used.

    Large leaves inside of the fast network; then all that divide; then over the slow network too, on all devices.
    """
    near = undominated(inside(topology, axis_size))
    found = [(near, True), (near, False)]
    if topology.fast not in (None, topology.devices):
        most = math.gcd(axis_size, topology.devices)
        rest = topology.devices // most
        far = [m for m in all_meshes(topology, axis_size) if m.lanes == most and rest % m.model == 0 and m not in near]
        found.append((far, False))
    return found


def rank(lanes_per_device: int, size: int, least: int) -> tuple[bool, int, int]:
    """Of what leaves at most an eighth more than the least, the fewest lanes on a device; else the fewest bytes."""
    is_near = size - least <= least // 8
    return (not is_near, lanes_per_device if is_near else 0, size)


def best_mesh(specs: Sequence[StateSpec], topology: Topology, axis_size: int) -> tuple[int, int, int]:
    """Bytes and lanes on a device, and devices in use, of the mesh that is taken where there is no budget."""
    sizes = [
        (
            mesh,
            sum(
                min(kept(s, x, mesh, axis_size) for x in splits(s, mesh, axis_size, topology, large_only=True))
                for s in specs
            ),
        )
        for mesh in inside(topology, axis_size)
    ]
    least = min(size for _, size in sizes)
    mesh, size = min(sizes, key=lambda m: (rank(axis_size // m[0].lanes, m[1], least), topology.devices - m[0].idle))
    return size, axis_size // mesh.lanes, topology.devices - mesh.idle


def placements(
    specs: Sequence[StateSpec], topology: Topology, axis_size: int, mesh: Mesh, *, large_only: bool, whole: bool
) -> Iterator[tuple[Cost, ...]]:
    """The cost of every state in every placement; those that cost the same once.

    ``whole``: a leaf that `model` can split may be left whole all the same.
    """
    options = []
    for spec in specs:
        every = splits(spec, mesh, axis_size, topology, large_only=large_only)
        if not whole:
            most = max(sum(axis is not None for axis in split) for split in every)
            every = [split for split in every if sum(axis is not None for axis in split) == most]
        options.append(sorted({cost(spec, s, mesh, axis_size, topology.platform) for s in every}, key=repr))
    yield from itertools.product(*options)


@dataclass(frozen=True)
class Fitting:
    """The lowest peak that a mesh can have, and the bytes that stay, for one effort."""

    effort: int
    mesh: Mesh
    bytes_per_device: int
    peak: int


def fittings(specs: Sequence[StateSpec], topology: Topology, axis_size: int, *, everything: bool) -> list[Fitting]:
    """Every effort, mesh and placement, with its lowest peak over all orders and slicings.

    ``everything``: the lanes may get fewer devices than divide them, or all at once, and a leaf that `model` can
    split may be left whole.
    """
    levels = efforts(topology, axis_size)
    if everything:
        near = inside(topology, axis_size)
        every = [m for m in all_meshes(topology, axis_size) if m in near or topology.devices % (m.lanes * m.model) == 0]
        levels = [(every, True), (every, False)]
    return [
        Fitting(
            effort,
            mesh,
            sum(c.kept for c in costs),
            least_peak(costs, topology.platform, sliced=True),
        )
        for effort, (meshes, large_only) in enumerate(levels)
        for mesh in meshes
        for costs in placements(specs, topology, axis_size, mesh, large_only=large_only, whole=everything)
    ]


def first_choice(every: Sequence[Fitting], budget: int, axis_size: int) -> Fitting | None:
    """What is documented to be taken: the least effort, there the best mesh."""
    least = {
        effort: min(f.bytes_per_device for f in every if f.effort == effort) for effort in {f.effort for f in every}
    }
    return min(
        (f for f in every if f.peak <= budget),
        key=lambda f: (f.effort, *rank(axis_size // f.mesh.lanes, f.bytes_per_device, least[f.effort])),
        default=None,
    )


def placed_mesh(plan: InitPlan) -> Mesh:
    axes = dict(plan.mesh_axes)
    return Mesh(axes["lanes"], axes.get("copies", 1), axes.get("model", 1), plan.idle_devices)


def placed_split(plan: InitPlan, at: int) -> Split:
    """What `model` splits of one state of a plan; its lanes are where they belong, and nothing else is split."""
    state, found = plan.states[at], []
    for leaf, spec in zip(state.leaves, state.spec.leaves, strict=True):
        axis = next((a for a, n in enumerate(leaf.partition_spec) if n == "model"), None)
        names: list[str | None] = [None] * len(leaf.shape)
        if axis is not None:
            names[axis] = "model"
        if state.spec.out_axis is not None:
            names[state.spec.out_axis] = "lanes"
        assert leaf.shape == spec.batched_shape(state.spec.out_axis, plan.axis_size)
        assert leaf.partition_spec == tuple(names), f"{state.spec} is placed as {leaf.partition_spec}"
        found.append(axis)
    return tuple(found)


def check(plan: InitPlan, specs: Sequence[StateSpec], topology: Topology, axis_size: int) -> None:
    """Assert that a plan is what it says, and without a budget the best there is."""
    mesh = placed_mesh(plan)
    assert mesh in all_meshes(topology, axis_size), f"{mesh} is no factorization"
    costs = []
    for at, spec in enumerate(specs):
        split = placed_split(plan, at)
        allowed = splits(spec, mesh, axis_size, topology, large_only=False)
        assert split in allowed, f"{spec} cannot be split like {split} on {mesh}"
        costs.append(cost(spec, split, mesh, axis_size, topology.platform))
        assert plan.states[at].bytes_per_device == costs[-1].kept, f"{spec} holds {costs[-1].kept}"
    assert plan.bytes_per_device == sum(c.kept for c in costs)
    check_steps(plan, costs, topology.platform)
    if plan.memory_budget is not None:
        assert plan.peak_bytes <= plan.memory_budget
        return
    found = (plan.bytes_per_device, plan.lanes_per_device, topology.devices - plan.idle_devices)
    best = best_mesh(specs, topology, axis_size)
    assert found == best, f"{found} bytes, lanes and devices on {mesh}, another mesh leaves {best}"
    lowest = least_peak(costs, topology.platform, sliced=False)
    assert plan.peak_bytes == lowest, f"a peak of {plan.peak_bytes}, another order has {lowest}"


def check_steps(plan: InitPlan, costs: Sequence[Cost], platform: str) -> None:
    """Assert that the steps run every piece once, with its costs, and add up to the peak."""
    assert sorted(n for step in plan.steps for n in step.pieces) == list(range(len(costs)))
    run = []
    for step in plan.steps:
        assert step.held == sum(stays for stays, _ in run)
        for number in step.pieces:
            assert step.temporaries in costs[number].temporaries
            run.append((costs[number].kept, step.temporaries))
        assert step.peak == step.held + step.made + step.temporaries + PIECE_BYTES[platform]
    assert plan.peak_bytes == peak_of(run, platform)
