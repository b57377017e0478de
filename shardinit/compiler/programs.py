"""Unique programs: pieces of equal structure and place, compiled once for all of them."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax

from shardinit.backend.private_jax import settings_by_name
from shardinit.lane.digest import Content
from shardinit.lane.primitives import contains
from shardinit.lane.structure import Instance, Source, Structure
from shardinit.spec.options import Strategy
from shardinit.spec.plan import Rounding


@dataclass(frozen=True, slots=True)
class Place:
    """Where one output of a piece goes: axis of its lanes (None: it has none), and mesh axis per array axis."""

    out_axis: int | None
    partition_spec: tuple[str | None, ...]

    def unsplit(self) -> "Place":
        """Give all of it to every device."""
        return Place(self.out_axis, (None,) * len(self.partition_spec))


@dataclass(frozen=True, slots=True)
class Way:
    """How a piece is computed, as planned: ``shardinit.spec.plan.Step`` says what each means."""

    strategy: Strategy
    slices: int = 1
    rounding: Rounding = "same"


@dataclass(slots=True, eq=False)
class UniqueProgram:
    """A structure with the way in which it is computed, and the places of its outputs.

    Attributes
    ----------
    structure
        The equations and slots.
    way
        Strategy, slices and rounding.
    places
        One per output.
    instances
        The pieces that it makes, in the order in which they run.
    """

    structure: Structure
    way: Way
    places: tuple[Place, ...]
    instances: list[Instance] = field(default_factory=list)

    @property
    def key(self) -> tuple[Content, Way, tuple[Place, ...]]:
        """Equal programs, equal keys."""
        return self.structure.content, self.way, self.places

    def numbers(self) -> contextlib.AbstractContextManager:
        """Inside, 64-bit types are there if some equation has them, whatever the caller's setting."""
        wide = any(settings_by_name(e.settings)["jax_enable_x64"] for e in self.structure.equations)
        return jax.enable_x64(True) if wide else contextlib.nullcontext()

    def uses(self, names: frozenset[str]) -> bool:
        """Whether an equation, however deep, is one of these primitives."""
        return any(contains(e, names) for e in self.structure.equations)

    @property
    def outputs(self) -> tuple[tuple[Source, Any, Place], ...]:
        """Where each output comes from, its abstract value and its place."""
        return tuple((s, a, p) for (s, a), p in zip(self.structure.outputs, self.places, strict=True))


def unique_programs(
    pieces: Sequence[tuple[Structure, Instance]],
    order: Sequence[int],
    ways: Sequence[Way],
    place: Callable[[int | None, Any], Place],
) -> list[UniqueProgram]:
    """Group pieces by structure, way and places; programs come in the order of their first piece.

    Parameters
    ----------
    pieces
        Structure and instance of each.
    order
        The order in which to run them.
    ways
        How each is computed.
    place
        Place of an output, given its index in the program (None if it is handed on) and its atom.
    """
    programs: dict[Any, UniqueProgram] = {}
    for at in order:
        structure, instance = pieces[at]
        places = tuple(place(index, atom) for index, atom in instance.outputs)
        if ways[at].rounding == "whole":  # every device computes all of it, and then keeps its part
            places = tuple(p.unsplit() for p in places)
        program = UniqueProgram(structure, ways[at], places)
        program = programs.setdefault(program.key, program)
        program.instances.append(instance)
    return list(programs.values())
