"""Cutting the lane program into the smallest pieces that produce its outputs.

Each output is sliced backwards to the keys it draws from. What two slices share is copied into both
when it is a cheap scalar that draws nothing; otherwise it keeps their outputs in one piece, up to a
limit; what is shared by more than that becomes a piece of its own whose value is handed on. The limit
keeps a value that every layer uses from fusing all layers into one program.
"""

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from shardinit.lane.equations import Atom, Equation, Variable, slice_of
from shardinit.lane.primitives import accumulates, calls_back, read_by

CHEAP_ELEMENTS = 64  # an array of at most that many elements may be computed twice
CHEAP_EQUATIONS = 64  # ... if at most that many equations lead to it
LARGEST_UNION = 16  # outputs that shared work may tie into one piece


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Equations in order, the variables they take from outside, the outputs they make.

    Attributes
    ----------
    equations
        In the order of the trace.
    keys
        Key variables that it reads from the key table.
    shared
        Variables that other pieces hand on to it.
    outputs
        What it makes: program outputs, by their index, and variables handed on to other pieces.
    """

    equations: tuple[Equation, ...]
    keys: tuple[Variable, ...]
    shared: tuple[Variable, ...]
    outputs: tuple[tuple[int | None, Atom], ...]


def cut(
    outputs: Sequence[tuple[int, Atom]],
    keys: Collection[Variable],
    given: Collection[Variable] = (),
    sums_alone: bool = True,
) -> list[Piece]:
    """Cut a program into pieces, in an order in which each comes after the pieces it takes values from.

    Parameters
    ----------
    outputs
        Index and atom of every output.
    keys
        Variables that the key table provides: slices stop there.
    given
        Variables that pieces outside of these hand on: there too.
    sums_alone
        Whether sums are pieces of their own. Not where single lanes are split over devices: what is
        handed on between pieces is whole lanes.
    """
    groups = _Groups()
    outside = {*keys, *given}
    users: dict[int, set[int]] = {}  # equation -> groups that need it
    for index, atom in outputs:
        _add_users(users, [atom], {groups.new((index, atom))}, outside)
    slices = slice_of((atom for _, atom in outputs), outside.__contains__)
    sizes = _cheap_sizes(slices, outside)
    handed_on: dict[Variable, int] = {}
    handing_on: set[int] = set()
    read_alone: set[Atom] = set()

    def hand_on(equation: Equation) -> int:
        group = groups.new(*((None, v) for v in equation.outputs))
        handed_on.update(dict.fromkeys(equation.outputs, group))
        handing_on.add(group)
        return group

    # Backwards, so that all users of an equation are known when it is reached. Say w1 and w2 are drawn and scaled by
    # one norm: their draws have one user each and stay apart, while the norm has both. If it is a cheap scalar it is
    # computed in both pieces; if not, it ties them together, or becomes a piece that hands its value on.
    for equation in reversed(slices):
        own = {groups.find(g) for g in users.get(equation.serial, ())}
        # A callback runs where nothing communicates, whatever the pieces around it do.
        alone = (sums_alone and accumulates(equation)) or calls_back(equation) != "no"
        if alone or read_alone.intersection(equation.outputs):
            own = {hand_on(equation)}
        elif len(own) > 1 and sizes[equation.serial] > CHEAP_EQUATIONS and not equation.outputs[0].lost_lanes:
            tied = sum(len(groups.outputs[g]) for g in own)
            # Only pieces that nothing waits for may be tied together: so no two can wait for each other.
            own = {groups.union(own) if tied <= LARGEST_UNION and handing_on.isdisjoint(own) else hand_on(equation)}
        if alone:
            read_alone.update(a for a in read_by(equation) if a.on_axis)
        _add_users(users, equation.inputs, own, outside)
    # The trace was walked backwards: what is handed on was found last where it comes first.
    order = sorted(handing_on, reverse=True) + [g for g in sorted(groups.outputs) if g not in handing_on]

    def piece(group: int) -> Piece:
        def is_elsewhere(variable: Variable) -> bool:
            return variable in given or (variable in handed_on and groups.find(handed_on[variable]) != group)

        return piece_of(groups.outputs[group], keys, is_elsewhere)

    return [piece(g) for g in order]


def _add_users(users: dict[int, set[int]], atoms: Iterable[Atom], groups: set[int], keys: Collection[Variable]) -> None:
    for atom in atoms:
        if isinstance(atom, Variable) and atom not in keys and atom.equation is not None:
            users.setdefault(atom.equation.serial, set()).update(groups)


class _Groups:
    """Union-find over groups of outputs."""

    def __init__(self) -> None:
        self.parent: list[int] = []
        self.outputs: dict[int, list[tuple[int | None, Atom]]] = {}

    def new(self, *outputs: tuple[int | None, Atom]) -> int:
        group = len(self.parent)
        self.parent.append(group)
        self.outputs[group] = list(outputs)
        return group

    def find(self, group: int) -> int:
        while self.parent[group] != group:
            self.parent[group] = group = self.parent[self.parent[group]]
        return group

    def union(self, groups: Collection[int]) -> int:
        first, *rest = sorted(groups)
        for group in rest:
            self.parent[group] = first
            self.outputs[first] += self.outputs.pop(group)
        return first


def _cheap_sizes(equations: Iterable[Equation], keys: Collection[Variable]) -> dict[int, int]:
    """Number of equations that lead to each one, infinite where it or they are not cheap."""
    sizes: dict[int, int] = {}
    for equation in equations:
        small = all(math.prod(v.aval.shape) <= CHEAP_ELEMENTS for v in equation.outputs)
        drawn = any(v.random for v in equation.outputs) or bool(equation.effects)
        size = 1 if small and not drawn else CHEAP_EQUATIONS + 1
        for atom in equation.inputs:
            if isinstance(atom, Variable) and atom not in keys and atom.equation is not None:
                size += sizes[atom.equation.serial]
        sizes[equation.serial] = min(size, CHEAP_EQUATIONS + 1)
    return sizes


def piece_of(
    outputs: Sequence[tuple[int | None, Atom]], keys: Collection[Variable], is_elsewhere: Callable[[Variable], bool]
) -> Piece:
    """Make the piece of some outputs; what is made elsewhere it takes from there."""
    # What other pieces hand on is taken from them, also where it is an output of its own.
    own = {atom for index, atom in outputs if index is None}
    equations = slice_of((a for _, a in outputs), lambda v: v in keys or (v not in own and is_elsewhere(v)))
    made = {v for e in equations for v in e.outputs}
    read = [a for e in equations for a in e.inputs] + [a for _, a in outputs]
    outside = list(dict.fromkeys(a for a in read if isinstance(a, Variable) and a not in made))
    return Piece(
        tuple(equations),
        tuple(v for v in outside if v in keys),
        tuple(v for v in outside if v not in keys),
        tuple(outputs),
    )
