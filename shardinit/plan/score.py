"""Bytes per device of many meshes at once, to know which to try first."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from shardinit.plan.placement import MeshChoice
from shardinit.plan.specs import LeafSpec, StateSpec


def bytes_by_mesh(specs: Sequence[StateSpec], meshes: Sequence[MeshChoice]) -> list[int]:
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
