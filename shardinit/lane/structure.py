"""What equal pieces have in common, and what each has of its own.

What differs between two equal pieces (which keys, the scalars, the arrays they close over) becomes
data: a row of a table that the compiled program looks up by its own counter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shardinit.lane.digest import Content, content_of, equation_content
from shardinit.lane.equations import Constant, Equation, Literal, Variable
from shardinit.lane.key_rows import KeyTable
from shardinit.lane.pieces import Piece

# Where an atom of a structure comes from: ("equation", i, j), ("key", i), ("literal", i), ...
Source = tuple[str, int] | tuple[str, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Structure:
    """Equations that serve every equal piece, with the slots that each fills.

    Attributes
    ----------
    content
        Equal structures, equal contents.
    equations, sources
        The equations, and where the inputs of each come from.
    keys
        Per key slot: which key table, and the shape.
    literals, constants, shared
        Abstract values of the slots; ``shared`` with whether the value is by lane.
    outputs
        Where each output comes from, and its abstract value.
    """

    content: Content
    equations: tuple[Equation, ...]
    sources: tuple[tuple[Source, ...], ...]
    keys: tuple[tuple[int, tuple[int, ...]], ...]
    literals: tuple[Any, ...]
    constants: tuple[Any, ...]
    shared: tuple[tuple[Any, bool], ...]
    outputs: tuple[tuple[Source, Any], ...]


@dataclass(slots=True, eq=False)
class Instance:
    """One piece, as data for its unique program; ``order`` is its place among all pieces."""

    order: int
    rows: list[int]
    literals: list[Any]
    constants: list[Any]
    shared: tuple[Variable, ...]
    outputs: tuple[tuple[int | None, Any], ...]


def structure_of(order: int, piece: Piece, tables: Sequence[KeyTable]) -> tuple[Structure, Instance]:
    """Tell what a piece has in common with its equals, and what is its own."""
    slots = _Slots(order, piece, tables)
    sources = tuple(tuple(slots.source(a) for a in e.inputs) for e in piece.equations)
    outputs = tuple((slots.source(atom), atom.aval) for _, atom in piece.outputs)
    shared = tuple((v.aval, v.by_lane) for v in piece.shared)
    content = content_of(
        tuple(map(equation_content, piece.equations)),
        sources,
        outputs,
        tuple(slots.keys),
        shared,
        tuple(slots.literals),
        tuple(slots.constants),
    )
    structure = Structure(
        content,
        piece.equations,
        sources,
        tuple(slots.keys),
        tuple(slots.literals),
        tuple(slots.constants),
        shared,
        outputs,
    )
    return structure, slots.instance


class _Slots:
    """Number the inputs of one piece, in the order in which its equations need them."""

    def __init__(self, order: int, piece: Piece, tables: Sequence[KeyTable]):
        self.tables = tables
        self.sources: dict[Any, Source] = {}
        self.instance = Instance(order, [], [], [], piece.shared, piece.outputs)
        self.keys: list[tuple[int, tuple[int, ...]]] = []
        self.literals: list[Any] = []
        self.constants: list[Any] = []
        for i, variable in enumerate(piece.keys):
            table = next(t for t, table in enumerate(tables) if variable in table.rows)
            self.sources[variable] = ("key", i)
            self.keys.append((table, variable.aval.shape))
            self.instance.rows += tables[table].rows[variable].ravel().tolist()
        for i, variable in enumerate(piece.shared):
            self.sources[variable] = ("shared", i)
        for i, equation in enumerate(piece.equations):
            for j, variable in enumerate(equation.outputs):
                self.sources[variable] = ("equation", i, j)

    def source(self, atom: Any) -> Source:
        if isinstance(atom, Literal):
            self.literals.append(atom.aval)
            self.instance.literals.append(np.asarray(atom.value, atom.aval.dtype))
            return ("literal", len(self.literals) - 1)
        if isinstance(atom, Constant) and atom not in self.sources:
            self.sources[atom] = ("constant", len(self.constants))
            self.constants.append(atom.aval)
            self.instance.constants.append(atom.value)
        return self.sources[atom]
