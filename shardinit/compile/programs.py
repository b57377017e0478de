"""Unique programs: pieces of equal structure and placement, compiled once for all of them."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax

from shardinit.lane.digest import Content
from shardinit.lane.primitives import calls_back
from shardinit.lane.structure import Instance, Source, Structure
from shardinit.plan.init_plan import Rounding
from shardinit.private_jax import settings_by_name


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one output of a piece goes.

    Attributes
    ----------
    out_axis
        Axis of the lanes, from 0; None if there is none.
    partition_spec
        Mesh axis per array axis.
    strategy
        ``vmap``, ``shard_map`` or ``gspmd``; ``local`` on the default device: one value, or all lanes.
    """

    out_axis: int | None
    partition_spec: tuple[str | None, ...]
    strategy: str


Key = tuple[Content, tuple[Placement, ...], int, Rounding]


@dataclass(slots=True, eq=False)
class UniqueProgram:
    """A structure with the placements of its outputs.

    Attributes
    ----------
    key
        Content of the structure, placements, slices and rounding: equal programs, equal keys.
    structure
        The equations and slots.
    placements
        One per output.
    slices
        Into how many slices the lanes of a device are cut, one after the other.
    rounding
        ``whole`` where every device computes all lanes of it, and keeps its part; there and where it is ``apart``, what
        rounds by the loop around it gets one of its own on a CPU.
    instances
        The pieces that it makes, in the order in which they run.
    """

    key: Key
    structure: Structure
    placements: tuple[Placement, ...]
    slices: int = 1
    rounding: Rounding = "same"
    instances: list[Instance] = field(default_factory=list)

    @property
    def strategy(self) -> str:
        """The strategy that suits all outputs."""
        found = {placement.strategy for placement in self.placements}
        return next(s for s in ("gspmd", "shard_map", "vmap", "local") if s in found)

    def numbers(self) -> contextlib.AbstractContextManager:
        """Inside, 64-bit types are there if some equation has them, whatever the caller's setting."""
        wide = any(settings_by_name(e.settings)["jax_enable_x64"] for e in self.structure.equations)
        return jax.enable_x64(True) if wide else contextlib.nullcontext()

    @property
    def outputs(self) -> tuple[tuple[Source, Any, Placement], ...]:
        """Where each output comes from, its abstract value and its placement."""
        return tuple((s, a, p) for (s, a), p in zip(self.structure.outputs, self.placements, strict=True))


def unique_programs(
    pieces: Sequence[tuple[Structure, Instance]],
    order: Sequence[int],
    slices: Sequence[int],
    rounded: Sequence[Rounding],
    placement: Callable[[int | None, Any], Placement],
) -> list[UniqueProgram]:
    """Group pieces by structure, placement, slices and rounding; programs come in the order of their first piece.

    Parameters
    ----------
    pieces
        Structure and instance of each.
    order
        The order in which to run them.
    slices
        Of each piece.
    rounded
        How each rounds, as planned.
    placement
        Placement of an output, given its index in the program (None if it is handed on) and its atom.
    """
    programs: dict[Key, UniqueProgram] = {}
    for at in order:
        structure, instance = pieces[at]
        placements = tuple(placement(index, atom) for index, atom in instance.outputs)
        # Pieces that are too large to keep their last bits are compiled like those that keep them anyway.
        rounding = rounded[at] if rounded[at] != "uneven" else "same"
        if rounding == "whole":
            where = "vmap" if calls_back(*structure.equations) == "no" else "local"
            placements = tuple(Placement(p.out_axis, (None,) * len(p.partition_spec), where) for p in placements)
        key = (structure.content, placements, slices[at], rounding)
        program = programs.setdefault(key, UniqueProgram(key, structure, placements, slices[at], rounding))
        program.instances.append(instance)
    return list(programs.values())
