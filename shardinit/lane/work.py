"""A lane program cut into the pieces that are planned, compiled and run."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from shardinit.lane.aligned import aligned_constants
from shardinit.lane.checks import Check, find_checks
from shardinit.lane.describe import leaf_spec
from shardinit.lane.digest import Content
from shardinit.lane.equations import UNKNOWN, Atom, Equation, Variable, is_key, is_on_host, slice_of
from shardinit.lane.key_rows import KeyTable, key_tables
from shardinit.lane.once import once_pieces
from shardinit.lane.pieces import cut
from shardinit.lane.primitives import COLLECTIVES, UNSPLITTABLE, accumulates, calls_back, contains, has_other_keys
from shardinit.lane.rounding import Rounded, rounded_by_place
from shardinit.lane.structure import Instance, Structure, structure_of
from shardinit.lane.temporaries import memory_of
from shardinit.spec.program import Callback, PieceMemory, PieceSpec


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """Everything that has to be made, cut into pieces.

    Attributes
    ----------
    equations
        All that the pieces need, in the order of the trace.
    tables
        Key tables.
    checks
        Effects to run, each with the indices, among the outputs, of the values that it reads.
    pieces
        In an order in which each comes after those it takes values from.
    specs
        The pieces as the planner sees them.
    """

    equations: tuple[Equation, ...]
    tables: tuple[KeyTable, ...]
    checks: tuple[tuple[Check, tuple[int, ...]], ...]
    pieces: tuple[tuple[Structure, Instance], ...]
    specs: tuple[PieceSpec, ...]


def adds_up(atoms: Iterable[Atom]) -> bool:
    """Whether numbers are added up on the way to some values, so that sums can be pieces of their own."""
    return any(accumulates(equation) for equation in slice_of(atoms))


def work_of(
    outputs: Sequence[Any],
    keys: Sequence[Variable],
    effects: Iterable[Equation],
    *,
    on_mesh: bool,
    whole_lanes: bool,
) -> Work:
    """Cut what the outputs need into pieces.

    Parameters
    ----------
    outputs, keys, effects
        Of a ``LaneProgram``.
    on_mesh
        Whether there is a mesh; without one, arrays that all lanes share stay as they are.
    whole_lanes
        Whether no state splits single lanes over devices: then sums are pieces of their own.
    """
    ends: list[tuple[int, Atom]] = []
    local: set[int] = set()
    leaves = 0
    for output in outputs:
        shared_attribute = output.spec.kind == "attribute" and output.spec.out_axis is None
        for atom in output.atoms:
            if not _stays_as_it_is(atom, output.spec.out_axis, on_mesh):
                ends.append((leaves, atom))
                if shared_attribute and not atom.on_axis:
                    local.add(leaves)
            leaves += 1
    of_states = slice_of(atom for _, atom in ends)
    checks: list[tuple[Check, tuple[int, ...]]] = []
    at = leaves
    for check in find_checks(effects, of_states):
        read = list(enumerate(check.reads, at))
        at += len(read)
        ends += read
        local.update(index for index, atom in read if not atom.on_axis)
        checks.append((check, tuple(index for index, _ in read)))
    shown = slice_of(a for check, _ in checks if check.predicate is None for a in check.reads)
    together = {e.serial for e in (*of_states, *shown) if e.all_lanes}
    equations = tuple(slice_of(atom for _, atom in ends))
    tables = tuple(key_tables(keys, equations))
    known = {v for t in tables for v in t.rows}
    once, given = once_pieces(equations, known)
    # What lives on the mesh and what lives on the default device share no piece.
    elsewhere = [*once, *cut([e for e in ends if e[0] in local], known, given)]
    here = cut([e for e in ends if e[0] not in local], known, given, sums_alone=whole_lanes)
    pieces = [structure_of(order, piece, tables) for order, piece in enumerate([*elsewhere, *here])]
    specs = _piece_specs(pieces, leaves, [True] * len(elsewhere) + [False] * len(here), together)
    return Work(equations, tables, tuple(checks), tuple(pieces), specs)


def _stays_as_it_is(atom: Atom, out_axis: int | None, on_mesh: bool) -> bool:
    """Whether a value that all lanes share needs no program: it is on the host, or there is one device."""
    if out_axis is not None or isinstance(atom, Variable):
        return False
    return is_on_host(atom) or not (atom.staged or on_mesh)


@dataclass(frozen=True, slots=True)
class _Known:
    """What pieces of one content have in common."""

    memory: PieceMemory
    rounded: Rounded
    splittable: bool
    known: bool
    collective: bool
    sliceable: bool
    aligned: tuple[bool, ...]
    calls_back: Callback

    @classmethod
    def of(cls, structure: Structure, atoms: Sequence[Atom]) -> "_Known":
        equations = structure.equations
        known = not any(contains(e, frozenset({UNKNOWN})) for e in equations)
        collective = any(contains(e, COLLECTIVES) for e in equations)
        return cls(
            memory=memory_of(equations, atoms),
            rounded=rounded_by_place(equations, atoms),
            splittable=not any(contains(e, UNSPLITTABLE) for e in equations),
            known=known,
            collective=collective,
            sliceable=known
            and not collective
            and not any(is_key(a.aval) or getattr(a.aval, "weak_type", False) for a in atoms),
            aligned=aligned_constants(structure),
            calls_back=calls_back(*equations),
        )


def _piece_specs(
    pieces: Sequence[tuple[Structure, Instance]], leaves: int, local: Iterable[bool], together: Collection[int]
) -> tuple[PieceSpec, ...]:
    numbers: dict[Variable | int, int] = {}  # of what pieces hand on, and of the outputs that checks read
    arrays: dict[int, int] = {}
    seen: dict[Content, _Known] = {}
    specs = []
    for (structure, instance), is_local in zip(pieces, local, strict=True):
        atoms = [atom for _, atom in instance.outputs]
        if structure.content not in seen:
            seen[structure.content] = _Known.of(structure, atoms)
        known = seen[structure.content]
        made = [
            (numbers.setdefault(atom if index is None else index, len(numbers)), leaf_spec(atom.aval, atom.by_lane))
            for index, atom in instance.outputs
            if index is None or index >= leaves
        ]
        specs.append(
            PieceSpec(
                structure.content.digest,
                tuple(index for index, _ in instance.outputs if index is not None and index < leaves),
                tuple(made),
                tuple(numbers[v] for v in instance.shared),
                known.memory,
                splittable=known.splittable,
                known=known.known,
                collective=known.collective,
                sliceable=known.sliceable,
                local=is_local,
                constants=tuple(
                    (arrays.setdefault(id(value), len(arrays)), leaf_spec(aval, by_lane=False))
                    for value, aval in zip(instance.constants, structure.constants, strict=True)
                ),
                aligned=known.aligned,
                table_bytes=4 * len(instance.rows) + sum(value.nbytes for value in instance.literals),
                elements=known.rounded.elements,
                shared_elements=known.rounded.shared_elements,
                rows=known.rounded.rows,
                fused_rows=known.rounded.fused_rows,
                chained=known.rounded.chained,
                never_even=known.rounded.never_even,
                never_exact=known.rounded.never_exact,
                all_lanes=any(e.serial in together for e in structure.equations)
                or has_other_keys(atom.aval for atom in atoms if atom.on_axis),
                calls_back=known.calls_back,
            )
        )
    return tuple(specs)
