"""Which mesh is the best of many: bytes per device of all at once, and lanes per device beside them.

A device's bytes are its memory and, since a lane in two halves is half the work, mostly its time: the fewest win. But
what is not split takes a device as long as it has lanes, and lanes in parts communicate: of meshes that leave nearly
as few bytes (an eighth more at most) the one with the fewest lanes on a device wins, then the one with the fewest
bytes, then the one with the fewest devices: one that holds nothing but copies is worth nothing.
"""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from shardinit.planner.placement import CandidateMesh
from shardinit.spec.states import LeafSpec, StateSpec

NEARLY = 8  # an eighth more bytes than the fewest are nearly as few


def ranked(meshes: Sequence[CandidateMesh], sizes: Sequence[float]) -> list[int]:
    """Order the numbers of meshes, the best first, by their bytes per device; infinite ones last."""
    least = min(sizes, default=0)

    def rank(at: int) -> tuple[float, ...]:
        mesh, size = meshes[at], sizes[at]
        is_near = size <= least + least // NEARLY if math.isfinite(least) else False
        used = math.prod(mesh.axes.values())
        lanes = mesh.padded // mesh.shards
        return (not is_near, lanes if is_near else 0, size, lanes, used, mesh.axes.get("copies", 1), at)

    return sorted(range(len(meshes)), key=rank)


def bytes_by_mesh(specs: Sequence[StateSpec], meshes: Sequence[CandidateMesh]) -> list[int]:
    """Bytes that all states leave on one device, per mesh; rules and layouts left aside."""
    counts: Counter[tuple[LeafSpec, int | None]] = Counter()
    for spec in specs:
        if spec.kind != "attribute":
            counts.update((leaf, spec.out_axis) for leaf in spec.leaves)
    if not counts:
        return [0] * len(meshes)
    leaves = list(counts)
    number = np.array([counts[leaf] for leaf in leaves], dtype=object)
    rank = max(1, max(len(leaf.shape) for leaf, _ in leaves))
    axes = np.ones((len(leaves), rank), dtype=np.int64)  # an axis of 1 is split by nothing
    for row, (leaf, out_axis) in enumerate(leaves):
        if out_axis is not None:
            axes[row, : len(leaf.shape)] = [n or 1 for n in leaf.shape]
    batched = np.array([axis is not None for _, axis in leaves])
    lane_bytes = np.array([leaf.lane_bytes for leaf, _ in leaves], dtype=object)
    found = []
    for mesh in meshes:
        size = np.where(batched, lane_bytes * (mesh.padded // mesh.shards), lane_bytes)
        model = mesh.axes.get(mesh.model or "", 1)
        split = (axes % model == 0).any(axis=1) & (size >= mesh.worth_splitting) & (model > 1)
        found.append(int((number * np.where(split, size // model, size)).sum()))
    return found
