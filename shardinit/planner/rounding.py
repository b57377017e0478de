"""Where a CPU's last bits depend on how many elements it computes at once.

XLA's CPU backend computes elements in vectors. What does not fill one, at the end of an array or in a small array,
goes through other code, which may round ``exp`` or a normal draw the other way. Eager brainstate computes all lanes
in one array, a device its own lanes only. The code also depends on the loop that an operation is fused into. So where
a small piece or its parts would not fill their vectors, every device computes it for all lanes, each such operation in
a loop of its own, and keeps its part; of a large piece the receipt says so. Since jax 0.11 the loop over the last axis
is one of its own: where that axis is short and fills no vectors, the compiler writes it out, and what is fused with it
decides the last bits, whatever the size of the array. Each such operation gets a loop of its own; what eager JAX makes
in one loop with others (a draw) then also depends on the number of lanes. Where one loop has several operations that
round by their place, threads may share it, each a part that fills no vectors: those get loops of their own too.

Some operations give a lane other values by the lanes beside it, on every backend (bits of ``rbg`` keys, rules of
``custom_vmap``): what they go into is computed for all lanes on every device, whatever its size.
"""

import math
from collections.abc import Sequence

from shardinit.planner.placement import CandidateMesh
from shardinit.spec.plan import InitPlan, LeafPlan, Rounding, StatePlan
from shardinit.spec.program import KeyTableSpec, PieceSpec

VECTOR = 16  # elements of the widest vector that there is: AVX-512 holds 16 of four bytes
UNROLLED = 4 * VECTOR  # with fewer, the compiler writes the whole loop out
LEAST_ROW = VECTOR // 2  # so it does with a loop of many operations, such as a draw; measured: up to 5
MOST_WHOLE = 1 << 15  # elements of all lanes that every device may compute
MOST_KEYS = 1 << 20  # bytes of the keys of all lanes that every device may hold for it


def roundings(
    pieces: Sequence[PieceSpec],
    states: Sequence[StatePlan],
    tables: Sequence[KeyTableSpec],
    mesh: CandidateMesh,
    most: int,
    exact: bool,
) -> tuple[Rounding, ...]:
    """Decide for every piece how it keeps the bits of eager brainstate, if it does: see ``Step.rounding``.

    ``most`` is the number of elements of all lanes that every device may compute; ``exact`` is whether bits are kept.
    What the partitioner splits, or exchanges between devices afterwards, is compiled to other loops, whatever its size.
    """
    several = math.prod(mesh.axes.values()) > 1
    together = taking_lanes_together(pieces) if several else set()
    if mesh.platform != "cpu" or not exact:
        return tuple("whole" if at in together else "same" for at in range(len(pieces)))
    key_bytes = sum(table.rows * table.words * 4 * mesh.axis_size for table in tables)
    owners = [(state, leaf) for state in states for leaf in state.leaves]
    makers: dict[int, int] = {}  # of values that differ by lane: the piece that makes each
    can_be_whole: list[bool] = []
    decided: list[Rounding] = []
    for at, piece in enumerate(pieces):
        own = [owners[i] for i in piece.leaves]
        uneven, most_elements = _rounds_by_place(piece, own, mesh)
        before = [makers[number] for number in piece.reads if number in makers] if several else []
        handed_on = [math.prod(spec.shape) * mesh.axis_size for _, spec in piece.makes]
        # A callback in a program on all devices could take them all down.
        alone = piece.local or piece.calls_back != "no" or key_bytes > MOST_KEYS
        small = not alone and most_elements <= most and all(at in together or can_be_whole[b] for b in before)
        can_be_whole.append(small and max(handed_on, default=0) <= most)
        makers.update((number, at) for number, spec in piece.makes if spec.by_lane)
        rounding: Rounding = "same"
        if piece.local:  # it runs once, and each step of it only for what is needed
            rounding = "uneven" if piece.never_even else "same"
        elif uneven or at in together:
            rounding = "whole" if small or at in together else "uneven"
        if rounding == "same" and (piece.chained or _has_short_rows(piece, own, mesh)):
            rounding = "apart"
        decided.append(rounding)
        # A device that computes all lanes of a piece needs all lanes of what goes into it: of a value that another
        # piece made for this device's lanes alone, the rest would have to come from other devices.
        while rounding == "whole" and before:  # so is what it takes values from
            maker = before.pop()
            if decided[maker] != "whole":
                decided[maker] = "whole"
                before += [makers[number] for number in pieces[maker].reads if number in makers]
    return tuple(decided)


def taking_lanes_together(pieces: Sequence[PieceSpec]) -> set[int]:
    """Return the pieces that need all lanes at once, and those that they take values from."""
    found: set[int] = set()
    read: set[int] = set()
    for at, piece in reversed([*enumerate(pieces)]):
        if not piece.local and (piece.all_lanes or any(number in read for number, _ in piece.makes)):
            found.add(at)
            read.update(piece.reads)
    return found


def pieces_rounded(plan: InitPlan, rounding: Rounding) -> set[int]:
    """Return the pieces that a plan decided so."""
    return {piece for step in plan.steps if step.rounding == rounding for piece in step.pieces}


def parts_of(own: Sequence[tuple[StatePlan, LeafPlan]], mesh: CandidateMesh) -> int:
    """Into how many parts the arrays of a piece are split, given the states that it makes."""
    if own and all(state.strategy == "vmap" for state, _ in own):
        return 1
    names = {name for _, leaf in own for name in leaf.partition_spec if name}
    return math.prod(mesh.axes[name] for name in names | ({mesh.lanes} if mesh.lanes else set()))


def _rounds_by_place(
    piece: PieceSpec, own: Sequence[tuple[StatePlan, LeafPlan]], mesh: CandidateMesh
) -> tuple[bool, int]:
    """Whether parts of a piece may round differently from the whole, and how many elements that whole has."""
    parts = parts_of(own, mesh)
    other_loops = mesh.padded != mesh.axis_size or any(state.strategy == "gspmd" for state, _ in own)
    elements = [count * mesh.axis_size for count in piece.elements]
    uneven = piece.never_even or any(_is_uneven(count, parts, other_loops) for count in elements)
    uneven |= parts > 1 and any(rows < LEAST_ROW for rows in piece.fused_rows)
    if parts > 1 and other_loops:  # what all lanes share is whole on each device, unless it is split itself
        uneven |= bool(piece.shared_elements)
        elements += piece.shared_elements
    return uneven, max(elements, default=0)


def _has_short_rows(piece: PieceSpec, own: Sequence[tuple[StatePlan, LeafPlan]], mesh: CandidateMesh) -> bool:
    """Whether a piece that may round by place has loops over a last axis that the compiler writes out."""
    if not piece.rows:
        return False
    if piece.local:
        return True
    made = [leaf.shape[-1] // mesh.axes.get(leaf.partition_spec[-1] or "", 1) for _, leaf in own if leaf.shape]
    return any(map(_is_written_out, (*piece.rows, *made)))


def _is_written_out(rows: int) -> bool:
    return rows % VECTOR != 0 and rows < UNROLLED


def _is_uneven(elements: int, parts: int, other_loops: bool) -> bool:
    part = elements // parts
    split_otherwise = parts > 1 and other_loops
    return split_otherwise or elements % VECTOR != 0 or part % VECTOR != 0 or part < UNROLLED
