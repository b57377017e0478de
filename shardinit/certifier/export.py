"""Programs of a plan, lowered for a target and written to files for its compiler."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax import export
from jax.sharding import AbstractMesh, AxisType

from shardinit.backend.ambient import no_ambient_mesh
from shardinit.backend.private_jax import entered
from shardinit.certifier.targets import Target
from shardinit.compiler.grouping import group
from shardinit.compiler.keys import key_program
from shardinit.compiler.lanes import LaneLayout
from shardinit.compiler.strategies import layout_of, piece_program
from shardinit.spec.plan import InitPlan


@dataclass(frozen=True, slots=True, eq=False)
class ExportedProgram:
    """A program on its way to the compiler.

    ``pieces`` are the numbers of those it serves; ``table_bytes`` is what its tables take, one row for each.
    """

    number: int
    strategy: str
    pieces: tuple[int, ...]
    outputs: int
    on_mesh: bool
    file: str
    specs: list[list[Any]]
    error: str
    table_bytes: int = 0


def export_all(plan: InitPlan, target: Target, folder: Path) -> list[ExportedProgram]:
    """Lower every unique program of a plan for its target, the key programs first, each to a file."""
    names, sizes = [n for n, _ in plan.mesh_axes], [s for _, s in plan.mesh_axes]
    mesh = AbstractMesh(tuple(sizes), tuple(names), axis_types=(AxisType.Auto,) * len(names)) if names else None
    found: list[ExportedProgram] = []
    with no_ambient_mesh(), entered(plan.program.settings), jax.disable_jit(False):
        grouped = group(plan.program, plan, mesh)
        key_tables = grouped.work.tables
        tables: dict[Any, None] = {}
        for program in grouped.programs:
            own = layout_of(program, grouped.layout)
            tables |= dict.fromkeys((t, own) for t, _ in program.structure.keys)
        for table, own in tables:
            made = key_program(key_tables[table], own)
            found.append(_export(len(found), "keys", (), 1, own, made, target, folder))
        for program in grouped.programs:
            own = layout_of(program, grouped.layout)
            pieces = tuple(instance.order for instance in program.instances)
            strategy = program.way.strategy
            with program.numbers():
                made = piece_program(program, key_tables, own)
                found.append(_export(len(found), strategy, pieces, len(program.places), own, made, target, folder))
    return found


def _export(
    number: int,
    strategy: str,
    pieces: tuple[int, ...],
    outputs: int,
    layout: LaneLayout,
    made: tuple[Any, tuple[Any, ...]],
    target: Target,
    folder: Path,
) -> ExportedProgram:
    jitted, arguments = made
    file = folder / f"{number}.bin"
    error = ""
    try:
        exported = export.export(jitted, platforms=[target.platform])(*arguments).serialize()
    except Exception as raised:  # lowering for the target is part of what is certified
        error = f"{type(raised).__name__}: {raised}"
    else:
        file.write_bytes(exported)
    shardings = [a.sharding for a in jax.tree.leaves(arguments)]
    specs = [list(s.spec) if s is not None else [] for s in shardings]
    tables = sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(arguments[2:4])) if pieces else 0
    return ExportedProgram(number, strategy, pieces, outputs, layout.mesh is not None, str(file), specs, error, tables)
