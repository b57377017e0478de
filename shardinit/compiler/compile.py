"""The initialization compiler: a lane program and a plan in, compiled unique programs out."""

import time
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import jax
from jax.sharding import Mesh

from shardinit.backend.ambient import no_ambient_mesh
from shardinit.backend.exchange import agree, is_shared, processes_of
from shardinit.backend.mesh import check_mesh, make_mesh, with_auto_axes
from shardinit.backend.private_jax import entered
from shardinit.compiler.executables import CompiledProgram, Compiler, platform_of
from shardinit.compiler.fingerprint import environment_fields, program_fields
from shardinit.compiler.grouping import Grouped, group
from shardinit.compiler.lanes import LaneLayout
from shardinit.compiler.notes import numerics_notes, placement_notes
from shardinit.errors import PlanError
from shardinit.lane.checks import Check
from shardinit.lane.key_rows import KeyTable
from shardinit.lane.program import LaneProgram, Traced
from shardinit.lane.structure import Instance
from shardinit.planner.device_bytes import platform_family
from shardinit.planner.search import check_traced_size, with_steps
from shardinit.spec.plan import InitPlan
from shardinit.wording import counted, listed


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class CompiledInit:
    """Everything that ``execute`` runs.

    Attributes
    ----------
    program, plan, mesh
        What it was compiled from.
    keys
        Per key table and layout that pieces read it in: the key program.
    programs
        Unique programs, in the order of their first piece.
    grouped
        The pieces in the order in which they run, and what they are made of.
    seconds
        Time to group and lower; compiling goes on in threads.
    cached
        How many of the executables were compiled before, in this process.
    notes
        What a user should know about the values, in sentences.
    traced
        The target that it is for, and who takes the arrays; None where they are only produced.
    """

    program: LaneProgram
    plan: InitPlan
    mesh: Mesh | None
    keys: dict[tuple[int, LaneLayout], Future]
    programs: tuple[CompiledProgram, ...]
    grouped: Grouped
    seconds: float
    cached: int
    notes: tuple[str, ...]
    traced: Traced | None = None

    @property
    def sequence(self) -> tuple[tuple[int, Instance], ...]:
        """Every piece in the order in which they run, each with the number of its program."""
        return self.grouped.sequence

    @property
    def tables(self) -> tuple[KeyTable, ...]:
        """Key tables."""
        return self.grouped.work.tables

    @property
    def checks(self) -> tuple[tuple[Check, tuple[int, ...]], ...]:
        """Effects to run, each with the indices, among the outputs, of the values that it reads."""
        return self.grouped.work.checks

    @property
    def leaf_count(self) -> int:
        """Number of leaves of the program's outputs; what effects read has the indices after them."""
        return len(self.program.atoms)

    def __repr__(self) -> str:
        plan = self.plan
        return (
            f"CompiledInit({counted(len(self.programs), 'program')}, axis_size={plan.axis_size}, mesh={plan.mesh_axes})"
        )

    def wait(self) -> "CompiledInit":
        """Wait until everything is compiled."""
        for future in (*self.keys.values(), *(p.executable for p in self.programs)):
            future.result()
        return self


def compile(program: LaneProgram, plan: InitPlan, mesh: Mesh | None = None) -> CompiledInit:
    """Compile each unique piece of a lane program once, in threads: ``shardinit.compile``.

    Raises
    ------
    PlanError
        If the plan is of another program, the mesh is not the plan's, or there are fewer devices.
    DisagreementError, JoinError
        If the mesh is that of several processes, and they would not compile the same, or one does not come.
    """
    started = time.perf_counter()
    plan = _checked(program, plan)
    if mesh is None:
        mesh = make_mesh(plan)
    else:
        check_mesh(plan, mesh)
    _check_platform(plan, mesh)
    with no_ambient_mesh(), entered(program.settings), jax.disable_jit(False):
        grouped = group(program, plan, None if mesh is None else with_auto_axes(mesh))
        ranks = () if mesh is None else processes_of(mesh.devices.flat)
        if is_shared(ranks):  # programs that differ would give wrong numbers, or hang
            agree("program", environment_fields() | program_fields(program, plan, grouped), ranks)
        compiler = Compiler(grouped.layout, grouped.work.tables)
        programs = tuple(compiler.submit(each) for each in grouped.programs)
        notes = (*numerics_notes(program, plan, grouped.work), *placement_notes(plan))
    seconds = time.perf_counter() - started
    return CompiledInit(program, plan, mesh, compiler.keys, programs, grouped, seconds, compiler.cached, notes)


def _checked(program: LaneProgram, plan: InitPlan) -> InitPlan:
    """Refuse the plan of another program; give a plan of specs alone the program's steps."""
    spec = program.spec(on_mesh=bool(plan.mesh_axes))
    check_traced_size(spec, plan.axis_size)
    for ours, planned in zip_longest(spec.states, (s.spec for s in plan.states)):
        if ours != planned:
            raise PlanError(
                f"the plan is of another program: it has {planned} where the program has {ours}. Plan again."
            )
    if not plan.of_program:
        return with_steps(plan, spec)
    if len(plan.digests) != len(spec.digests):
        raise PlanError(f"the plan has {len(plan.digests)} digests for {len(spec.digests)} states. Plan again.")
    pairs = zip(spec.states, spec.digests, plan.digests, strict=True)
    if differing := [state.name for state, ours, planned in pairs if ours != planned]:
        raise PlanError(
            f"the plan is of another program: init makes {listed(differing)} in another way than when it was "
            f"planned ({len(differing)} of {len(spec.states)} states). Plan again."
        )
    return plan


def _check_platform(plan: InitPlan, mesh: Any) -> None:
    """Refuse devices of another kind: memory, and what rounds how, are planned for one."""
    platform = platform_of(mesh)
    if platform_family(platform) != platform_family(plan.topology.platform):
        raise PlanError(
            f"the plan is for {plan.topology.platform} devices, these are {platform} devices. "
            f"Plan for {'Topology.default_device()' if mesh is None else 'Topology.from_mesh(mesh)'}."
        )
