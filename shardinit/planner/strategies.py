"""How each piece is computed. Decided here alone: the compiler has one class per strategy, and follows the plan.

A piece may make several arrays that go to different places, or hand values on to other pieces: so its strategy is not
always that of the states that it makes.
"""

from collections.abc import Hashable, Sequence

from shardinit.errors import PlanError
from shardinit.planner.callbacks import runs_on_one_device
from shardinit.planner.placement import CandidateMesh
from shardinit.spec.options import Strategy
from shardinit.spec.plan import LeafPlan, Rounding, StatePlan
from shardinit.spec.program import PieceSpec
from shardinit.spec.states import LeafSpec

SPLITTING = frozenset({"shard_map", "pmap", "gspmd"})
# Where the outputs of a piece want different strategies, the first of these that one of them wants suits all.
SUITING_ALL: tuple[Strategy, ...] = ("gspmd", "shard_map", "vmap", "local")


def splits_lanes(states: Sequence[StatePlan]) -> bool:
    """Whether any state is made in parts; else every device, or the only one, computes all lanes of everything."""
    return any(state.strategy in SPLITTING for state in states)


def strategies(
    pieces: Sequence[PieceSpec],
    states: Sequence[StatePlan],
    mesh: CandidateMesh,
    rounded: Sequence[Rounding],
    axis_name: Hashable = None,
) -> tuple[Strategy, ...]:
    """Decide a strategy for every piece.

    Parameters
    ----------
    pieces, states, mesh
        What is planned.
    rounded
        How each piece keeps the bits of eager brainstate.
    axis_name
        Name of the axis over which collectives inside of init go.

    Raises
    ------
    PlanError
        If collectives would count lanes that are padded.
    """
    owners = [(state, leaf) for state in states for leaf in state.leaves]
    lanes = mesh.lanes if splits_lanes(states) else None
    return tuple(
        _strategy(piece, [owners[leaf] for leaf in piece.leaves], mesh, lanes, rounding, axis_name)
        for piece, rounding in zip(pieces, rounded, strict=True)
    )


def _strategy(
    piece: PieceSpec,
    own: Sequence[tuple[StatePlan, LeafPlan]],
    mesh: CandidateMesh,
    lanes: str | None,
    rounding: Rounding,
    axis_name: Hashable,
) -> Strategy:
    if piece.local:
        return "local"
    if rounding == "whole":
        return "vmap" if piece.calls_back == "no" else "local"
    wanted: set[Strategy] = {"shard_map" if state.strategy == "pmap" else state.strategy for state, _ in own}
    wanted |= {_of_handed_on(spec, piece, mesh, lanes) for _, spec in piece.makes}
    strategy = next(each for each in SUITING_ALL if each in wanted)
    if strategy not in SPLITTING:
        return strategy
    is_padded = mesh.padded != mesh.axis_size
    if piece.collective:
        if is_padded:
            raise PlanError(
                f"init uses collectives over the lanes, which would count the {mesh.padded - mesh.axis_size} lanes "
                "that remainder='pad' adds. Use remainder='factor'."
            )
        # With one lane on each device they are collectives of the mesh; else of vmap, which XLA partitions.
        alone = lanes is not None and mesh.axes[lanes] == mesh.padded and axis_name == lanes
        return "shard_map" if alone else "gspmd"
    by_lanes = all(_is_split_by_lanes(state, leaf, lanes) for state, leaf in own)
    by_lanes &= lanes is not None or not any(spec.by_lane for _, spec in piece.makes)
    if not by_lanes and (is_padded or not piece.known):
        return "padded"
    return "shard_map" if by_lanes and (strategy == "shard_map" or not piece.splittable) else "gspmd"


def _of_handed_on(spec: LeafSpec, piece: PieceSpec, mesh: CandidateMesh, lanes: str | None) -> Strategy:
    """Strategy that a value wants which other pieces read: its lanes are split as the lanes are."""
    if not spec.by_lane:
        return "local" if piece.calls_back != "no" else "shard_map" if lanes else "vmap"
    split = lanes is not None and mesh.axes[lanes] > 1
    if mesh.axes and runs_on_one_device(piece.calls_back, lanes_split=split, lanes_shared=mesh.shares_lanes):
        return "local"
    return "shard_map" if lanes else "vmap"


def _is_split_by_lanes(state: StatePlan, leaf: LeafPlan, lanes: str | None) -> bool:
    """Whether the lanes of an array are split over the axis of the lanes, and nothing else is split over it."""
    split = [axis for axis, name in enumerate(leaf.partition_spec) if name is not None and name == lanes]
    out_axis = state.spec.out_axis
    return split == ([] if out_axis is None else [out_axis % len(leaf.shape)])
