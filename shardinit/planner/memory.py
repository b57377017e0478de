"""Memory over the time of an initialization: what one device holds, piece by piece, and the peak."""

import itertools
import math
import operator
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shardinit.planner.callbacks import runs_on_one_device
from shardinit.planner.device_bytes import laid_out_bytes
from shardinit.planner.memory_figures import DRAW_WORDS, KEY_PROGRAM_BYTES, PIECE_BYTES, TABLE_ROW_BYTES
from shardinit.planner.meshes import divisors
from shardinit.planner.placement import CandidateMesh, aligned_spec
from shardinit.planner.rounding import VECTOR, parts_of
from shardinit.spec.options import Strategy
from shardinit.spec.plan import LeafPlan, Rounding, StatePlan, Step
from shardinit.spec.program import Bytes, KeyTableSpec, PieceMemory, PieceSpec
from shardinit.spec.states import LeafSpec

Own = Sequence[tuple[LeafPlan, StatePlan, LeafSpec]]  # the leaves that a piece makes


@dataclass(frozen=True, slots=True)
class Load:
    """One piece on one device: what it makes for states, for later pieces, and needs meanwhile.

    ``temporaries[k]`` is for the lanes cut into ``slices[k]`` parts. A piece is ``linked`` if it takes values
    from others, or others from it. ``constants`` are numbers, placements and bytes of the arrays from outside that it
    takes, ``table_bytes`` those of its row in the tables of its program. ``elements`` are those of one device.
    What is ``local`` runs first.
    """

    number: int
    kept: int
    handed_on: tuple[tuple[int, int], ...]
    reads: tuple[int, ...]
    slices: tuple[int, ...]
    temporaries: tuple[int, ...]
    kind: Any
    linked: bool
    constants: tuple[tuple[Any, int], ...] = ()
    table_bytes: int = 0
    rounding: Rounding = "same"
    strategy: Strategy = "vmap"
    elements: tuple[int, ...] = ()
    local: bool = False
    never_even: bool = False


def pieces_of_specs(states: Sequence[StatePlan], platform: str) -> tuple[PieceSpec, ...]:
    """Describe one piece per state, where no program tells them."""
    lane, shared = DRAW_WORDS[platform]
    known: dict[tuple[tuple[LeafSpec, ...], bool], PieceMemory] = {}
    pieces, first = [], 0
    for state in states:
        leaves, batched = state.spec.leaves, state.spec.out_axis is not None
        if (leaves, batched) not in known:
            size = max((leaf.lane_bytes for leaf in leaves if batched or not leaf.on_host), default=0)
            moment = (Bytes(size * lane, size * shared) if batched else Bytes(0, size * (lane + shared)),)
            known[leaves, batched] = PieceMemory(cpu=moment, gpu=moment, tpu=moment, apart=moment)
        pieces.append(PieceSpec("", tuple(range(first, first + len(leaves))), memory=known[leaves, batched]))
        first += len(leaves)
    return tuple(pieces)


def loads_of(
    pieces: Sequence[PieceSpec],
    states: Sequence[StatePlan],
    mesh: CandidateMesh,
    rounded: Sequence[Rounding],
    chosen: Sequence[Strategy],
) -> list[Load]:
    """Tell what every piece costs on one device."""
    leaves = [
        (leaf, state, spec) for state in states for leaf, spec in zip(state.leaves, state.spec.leaves, strict=True)
    ]
    known: dict[Any, tuple[Any, ...]] = {}
    any_split = any(s.strategy != "vmap" for s in states)
    read = {number for piece in pieces for number in piece.reads}
    loads = []
    for number, (piece, rounding, strategy) in enumerate(zip(pieces, rounded, chosen, strict=True)):
        own = [leaves[i] for i in piece.leaves]
        kind = _kind(piece, own, strategy, rounding)
        if kind not in known:
            known[kind] = _cost(piece, own, mesh, any_split, rounding)
        kept, handed, slices, temporaries = known[kind]
        numbers = tuple((n, size) for (n, _), size in zip(piece.makes, handed, strict=True))
        linked = bool(piece.reads) or any(n in read for n, _ in numbers)
        part = _part_of_constants(piece, own, mesh) if strategy == "gspmd" else ()
        constants = tuple(
            _constant(n, spec, part if is_aligned else (), mesh)
            for (n, spec), is_aligned in zip(piece.constants, piece.aligned, strict=True)
        )
        parts = parts_of([(s, leaf) for leaf, s, _ in own], mesh)
        loads.append(
            Load(
                number,
                kept,
                numbers,
                piece.reads,
                slices,
                temporaries,
                kind,
                linked,
                constants,
                piece.table_bytes,
                rounding,
                strategy,
                elements=tuple(count * mesh.axis_size // parts for count in piece.elements),
                local=piece.local,
                never_even=piece.never_even,
            )
        )
    return loads


def _kind(piece: PieceSpec, own: Own, strategy: Strategy, rounding: Rounding) -> tuple[Any, ...]:
    """What pieces of equal cost have in common: those of one kind are one step, and run one after the other."""
    made = tuple(spec for _, spec in piece.makes)
    places = tuple((leaf.shape, leaf.partition_spec, state.strategy, spec.itemsize) for leaf, state, spec in own)
    kind = (piece.structure, strategy, rounding, made, places)
    return kind if piece.structure else (*kind, piece.memory)


def _part_of_constants(piece: PieceSpec, own: Own, mesh: CandidateMesh) -> tuple[str | None, ...]:
    """PartitionSpec of the arrays from outside that are aligned with what a piece makes."""
    if piece.makes or mesh.padded != mesh.axis_size:
        return ()
    axes = [None if s.spec.out_axis is None else s.spec.out_axis % len(leaf.shape) for leaf, s, _ in own]
    return aligned_spec(zip(axes, (leaf.partition_spec for leaf, _, _ in own), strict=True))


def _constant(number: int, spec: LeafSpec, part: tuple[str | None, ...], mesh: CandidateMesh) -> tuple[Any, int]:
    """Say which array, placed how, a device holds, and its bytes there."""
    shape = [n // mesh.axes[name] if name else n for n, name in itertools.zip_longest(spec.shape, part)]
    return (number, part if any(part) else ()), laid_out_bytes(shape, spec.itemsize, mesh.platform)


def _cost(
    piece: PieceSpec, own: Own, mesh: CandidateMesh, any_split: bool, rounding: Rounding
) -> tuple[int, tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    strategies = {state.strategy for _, state, _ in own}
    kept = sum(_laid_out(leaf, spec, mesh) for leaf, _, spec in own)
    handed = tuple(_handed_on_bytes(spec, mesh, any_split and rounding != "whole") for _, spec in piece.makes)
    compiled = "apart" if mesh.platform == "cpu" and rounding in ("apart", "whole") else mesh.platform
    if rounding == "whole":
        made = sum(_all_lanes(leaf, spec, mesh) for leaf, _, spec in own)
        return kept, handed, (1,), (piece.memory.peak(compiled, mesh.axis_size) + made,)
    split = bool(strategies & {"shard_map", "pmap", "gspmd"}) or (
        not strategies and any_split and mesh.lanes is not None
    )
    one_device = piece.local or runs_on_one_device(
        piece.calls_back, lanes_split=split and mesh.shards > 1, lanes_shared=mesh.shares_lanes
    )
    lanes = 1 if piece.local else mesh.padded // mesh.shards if split and not one_device else mesh.axis_size
    slices = divisors(lanes) if piece.sliceable else [1]
    parts, exchanged = 1, 0
    if "gspmd" in strategies:
        shards = [_parts(leaf, mesh) // mesh.shards or 1 for leaf, _, _ in own]
        if piece.splittable:
            parts = min(shards)
        else:  # whole lanes are made, and each device keeps its part
            exchanged = kept * (max(shards) - 1)
        lanes_split = all(mesh.lanes in leaf.partition_spec for leaf, _, _ in own)
        if piece.splittable and not lanes_split and mesh.padded == mesh.axis_size:
            lanes, parts = mesh.padded, min(_parts(leaf, mesh) for leaf, _, _ in own)
        if mesh.padded != mesh.axis_size:  # computed over the lanes, then cut and exchanged
            exchanged, parts = 2 * kept * mesh.padded // mesh.axis_size, 1
    if one_device and mesh.axes:  # beside what each device gets of it, what it was made as
        exchanged += sum(_handed_on_bytes(spec, mesh, any_split=False) for _, spec in piece.makes)
    own_bytes = kept + sum(handed)
    temporaries = tuple(
        piece.memory.peak(compiled, lanes // s) // parts + exchanged + (own_bytes // s if s > 1 else 0) for s in slices
    )
    return kept, handed, tuple(slices), temporaries


def _laid_out(leaf: Any, spec: LeafSpec, mesh: CandidateMesh) -> int:
    if not leaf.bytes_per_device:  # it is empty, or stays on the host
        return 0
    shard = [n // mesh.axes[name] if name else n for n, name in zip(leaf.shape, leaf.partition_spec, strict=True)]
    return laid_out_bytes(shard, spec.itemsize, mesh.platform)


def _all_lanes(leaf: Any, spec: LeafSpec, mesh: CandidateMesh) -> int:
    return laid_out_bytes(leaf.shape, spec.itemsize, mesh.platform) if leaf.bytes_per_device else 0


def _parts(leaf: Any, mesh: CandidateMesh) -> int:
    return math.prod(mesh.axes[name] for name in leaf.partition_spec if name)


def _handed_on_bytes(spec: LeafSpec, mesh: CandidateMesh, any_split: bool) -> int:
    lanes = mesh.padded // mesh.shards if any_split else mesh.axis_size
    shape = (lanes, *spec.shape) if spec.by_lane else spec.shape
    return laid_out_bytes(shape, spec.itemsize, mesh.platform)


def key_bytes(
    tables: Sequence[KeyTableSpec], states: Sequence[StatePlan], mesh: CandidateMesh, rounded: Sequence[Rounding]
) -> int:
    """Bytes of the key tables (rows and words of a key), which live until everything is made.

    Pieces whose lanes are split and pieces whose lanes are not have tables of their own.
    """
    batched = {s.strategy for s in states if s.spec.out_axis is not None}
    lanes = [mesh.axis_size] if "vmap" in batched or not batched or "whole" in rounded else []
    if batched - {"vmap"}:
        lanes.append(mesh.padded // mesh.shards)
    return sum(laid_out_bytes((t.rows, n, t.words), 4, mesh.platform) for t in tables for n in lanes)


def schedule(
    loads: Sequence[Load], keys: int, names: Sequence[str], mesh: CandidateMesh, budget: int | None
) -> tuple[Step, ...]:
    """Order the pieces so that the peak is low, and slice those that would break the budget.

    Those with the largest temporaries go first, while little else is held: of pieces that stand alone, no
    order has a lower peak. Pieces that wait for each other keep their order, each as early as the largest
    temporaries that follow it.
    """
    first = _first_step(keys, mesh)
    steps = (*first, *_run(_ordered(loads, sliced=False), keys, names, mesh, None))
    if budget is None or not steps or max(s.peak for s in steps) <= budget:
        return steps
    return (*first, *_run(_ordered(loads, sliced=True), keys, names, mesh, budget))


def _first_step(keys: int, mesh: CandidateMesh) -> tuple[Step, ...]:
    """Describe the key program, which runs before any piece."""
    if not keys:
        return ()
    scratch = KEY_PROGRAM_BYTES[mesh.platform]
    return (Step((), "(keys)", 0, keys, scratch, keys + scratch),)


def _ordered(loads: Sequence[Load], *, sliced: bool) -> list[Load]:
    local = [load for load in loads if load.local]
    linked = [load for load in loads if load.linked and not load.local]
    alone = [load for load in loads if not load.linked and not load.local]
    first: dict[Any, int] = {}
    for load in alone:
        first.setdefault(load.kind, load.number)
    least = min if sliced else operator.itemgetter(0)  # of all slicings, or without any
    # What a piece keeps is held from then on, whatever the order, so only temporaries can be moved: while little is
    # held. If a piece with small temporaries ran before one with large ones, exchanging the two would not raise the
    # peak of either; so sorting by temporaries, the largest first, is an order with the lowest peak.
    alone.sort(key=lambda load: (-least(load.temporaries), -load.kept, first[load.kind]))
    worst_to_come = list(itertools.accumulate((least(load.temporaries) for load in reversed(linked)), max))[::-1]
    ordered, at = [], 0
    for load in alone:
        while at < len(linked) and worst_to_come[at] >= least(load.temporaries):
            ordered.append(linked[at])
            at += 1
        ordered.append(load)
    return local + ordered + linked[at:]


def _run(
    loads: Sequence[Load], keys: int, names: Sequence[str], mesh: CandidateMesh, budget: int | None
) -> tuple[Step, ...]:
    least = PIECE_BYTES[mesh.platform]
    outside = _Constants(loads)
    readers: dict[int, int] = {}
    for load in loads:
        for number in load.reads:
            readers[number] = readers.get(number, 0) + 1
    sizes: dict[int, int] = {}
    held, steps, at = keys + sum(load.table_bytes for load in loads), [], 0
    while at < len(loads):
        load = loads[at]
        end = at + 1
        while not load.linked and end < len(loads) and loads[end].kind == load.kind:
            end += 1
        count, made = end - at, load.kept + sum(size for _, size in load.handed_on)
        before_last = held + (count - 1) * made
        constants = max(map(outside.held_for, loads[at:end]))
        room = None if budget is None else budget - before_last - made - least - constants
        slices, temporaries = _slicing(load, room)
        temporaries += count * TABLE_ROW_BYTES[mesh.platform] if load.table_bytes else 0
        peak = before_last + made + temporaries + least + constants
        pieces = tuple(piece.number for piece in loads[at:end])
        cut_unevenly = slices > 1 and (load.never_even or any(n % (VECTOR * slices) for n in load.elements))
        rounding = "uneven" if cut_unevenly else load.rounding
        memory = (held, count * made, temporaries, peak)
        steps.append(Step(pieces, names[load.number], *memory, slices, constants, rounding, load.strategy))
        held += count * made
        sizes.update(load.handed_on)
        for number in load.reads:
            readers[number] -= 1
            if not readers[number]:
                held -= sizes.get(number, 0)
        at = end
    return tuple(steps)


class _Constants:
    """Arrays from outside: each is put on the device for its first reader and dropped after its last."""

    def __init__(self, loads: Sequence[Load]):
        self.readers = Counter(number for load in loads for number, _ in load.constants)
        self.sizes: dict[Any, int] = {}

    def held_for(self, load: Load) -> int:
        """Bytes that are there while a piece runs; pieces are asked in the order in which they run."""
        self.sizes.update(load.constants)
        held = sum(self.sizes.values())
        for number, _ in load.constants:
            self.readers[number] -= 1
            if not self.readers[number]:
                del self.sizes[number]
        return held


def _slicing(load: Load, room: int | None) -> tuple[int, int]:
    """Fewest slices whose temporaries fit the room, or as many as there can be; and those temporaries."""
    choices = list(zip(load.slices, load.temporaries, strict=True))
    if room is None:
        return choices[0]
    return next((c for c in choices if c[1] <= room), min(choices, key=lambda c: c[1]))
