"""What the best plan is, by brute force over everything that can be chosen.

Written from the documented rules, and by itself: of the planner it takes the public data types and two tables, what
a piece needs whatever its size and what a normal draw needs times its widest leaf (per lane, once).
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shardinit import InitPlan, StateSpec, Topology
from shardinit.plan.memory import DRAW_WORDS, PIECE_BYTES

WORTH_SPLITTING = 1 << 20  # bytes per device of a large leaf

Split = tuple[int | None, ...]  # per leaf, the array axis that `model` splits


@dataclass(frozen=True)
class Mesh:
    """One factorization of the devices: lanes x copies x model, or lanes alone with devices left idle."""

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


def factorizations(devices: int, axis_size: int, model_within: int | None = None) -> Iterator[Mesh]:
    """Every mesh whose lanes divide, and whose `model` stays inside of that many devices."""
    for lanes in divisors(devices):
        for model in divisors(devices // lanes):
            if axis_size % lanes == 0 and (model_within is None or model_within % model == 0):
                yield Mesh(lanes, devices // lanes // model, model)


def idling(topology: Topology, axis_size: int) -> list[Mesh]:
    """As many devices as the lanes divide by, where that is more than their common factor and all are in one node."""
    lanes = max(d for d in divisors(axis_size) if d <= topology.devices)
    if topology.fast is not None or topology.platform == "tpu" or topology.devices % lanes == 0:
        return []
    return [Mesh(lanes, 1, 1, topology.devices - lanes)] if lanes > math.gcd(axis_size, topology.devices) else []


def is_large(spec: StateSpec, at: int, devices: int, axis_size: int) -> bool:
    """Whether a leaf leaves 1 MiB or more on a device where the lanes are split as far as they go."""
    return spec.leaves[at].lane_bytes * (axis_size // math.gcd(axis_size, devices)) >= WORTH_SPLITTING


def splits(spec: StateSpec, mesh: Mesh, axis_size: int, devices: int, *, large_only: bool) -> list[Split]:
    """Everything that `model` can split of a state, and leaving leaves whole."""
    if spec.out_axis is None:
        return [(None,) * len(spec.leaves)]
    options: list[list[int | None]] = []
    for at, leaf in enumerate(spec.leaves):
        shape = leaf.batched_shape(spec.out_axis, axis_size)
        axes: list[int | None] = [None]
        if mesh.model > 1 and leaf.lane_bytes and (not large_only or is_large(spec, at, devices, axis_size)):
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

    Large leaves inside of the fast network, or devices idle; then all that divide; then over the slow network too.
    """
    inside = list(factorizations(topology.devices, axis_size, topology.fast or topology.devices))
    found = [([*inside, *idling(topology, axis_size)], True), (inside, False)]
    if topology.fast not in (None, topology.devices):
        found.append(([m for m in factorizations(topology.devices, axis_size) if m not in inside], False))
    return found


def least_bytes(specs: Sequence[StateSpec], topology: Topology, axis_size: int) -> int:
    """The fewest bytes per device of any mesh and any placement; devices idle only if that halves it."""
    meshes, large_only = efforts(topology, axis_size)[0]
    sizes = [
        (
            mesh.idle > 0,
            sum(
                min(
                    kept(s, x, mesh, axis_size)
                    for x in splits(s, mesh, axis_size, topology.devices, large_only=large_only)
                )
                for s in specs
            ),
        )
        for mesh in meshes
    ]
    fewest = min(size for idle, size in sizes if not idle)
    return min([fewest, *(size for idle, size in sizes if idle and 2 * size <= fewest)])


def placements(
    specs: Sequence[StateSpec], topology: Topology, axis_size: int, mesh: Mesh, *, large_only: bool, whole: bool
) -> Iterator[tuple[Cost, ...]]:
    """The cost of every state in every placement; those that cost the same once.

    ``whole``: a leaf that `model` can split may be left whole all the same.
    """
    options = []
    for spec in specs:
        every = splits(spec, mesh, axis_size, topology.devices, large_only=large_only)
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

    ``everything``: the lanes may get fewer devices than divide them, and a leaf that `model` can split may be left
    whole.
    """
    most_lanes = math.gcd(axis_size, topology.devices)
    levels = efforts(topology, axis_size)
    if not everything:
        levels = [([m for m in meshes if m.idle or m.lanes == most_lanes], large) for meshes, large in levels]
        for fewer in reversed(divisors(most_lanes)[:-1]):
            rest = [m for m in factorizations(topology.devices, axis_size) if m.lanes == fewer]
            levels += [(rest, True), (rest, False)]
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


def first_choice(every: Sequence[Fitting], budget: int) -> Fitting | None:
    """What is documented to be taken: the least effort, there the fewest bytes; devices idle last unless it halves."""
    fewest = min(f.bytes_per_device for f in every if f.effort == 0 and not f.mesh.idle)
    return min(
        (f for f in every if f.peak <= budget),
        key=lambda f: (f.mesh.idle > 0 and 2 * f.bytes_per_device > fewest, f.effort, f.bytes_per_device),
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
    known = [*factorizations(topology.devices, axis_size), *idling(topology, axis_size)]
    assert mesh in known, f"{mesh} is no factorization"
    costs = []
    for at, spec in enumerate(specs):
        split = placed_split(plan, at)
        allowed = splits(spec, mesh, axis_size, topology.devices, large_only=False)
        assert split in allowed, f"{spec} cannot be split like {split} on {mesh}"
        costs.append(cost(spec, split, mesh, axis_size, topology.platform))
        assert plan.states[at].bytes_per_device == costs[-1].kept, f"{spec} holds {costs[-1].kept}"
    assert plan.bytes_per_device == sum(c.kept for c in costs)
    check_steps(plan, costs, topology.platform)
    if plan.memory_budget is not None:
        assert plan.peak_bytes <= plan.memory_budget
        return
    fewest = least_bytes(specs, topology, axis_size)
    assert plan.bytes_per_device == fewest, f"{plan.bytes_per_device} bytes on {mesh}, another mesh leaves {fewest}"
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
