"""From a plan to unique programs: its pieces grouped, each with its way and the places of its outputs."""

from dataclasses import dataclass
from typing import Any

from shardinit.compiler.lanes import LaneLayout
from shardinit.compiler.programs import Place, UniqueProgram, Way, unique_programs
from shardinit.errors import PlanError
from shardinit.lane.equations import Atom
from shardinit.lane.program import LaneProgram
from shardinit.lane.structure import Instance
from shardinit.lane.work import Work
from shardinit.planner.strategies import splits_lanes
from shardinit.spec.plan import InitPlan, has_whole_lanes


@dataclass(frozen=True, slots=True, eq=False)
class Grouped:
    """A program, grouped as planned.

    Attributes
    ----------
    work
        Its pieces.
    layout
        How the lanes are laid out on the mesh.
    programs
        Unique programs, in the order of their first piece.
    sequence
        Every piece in the order in which they run, each with the number of its program.
    """

    work: Work
    layout: LaneLayout
    programs: tuple[UniqueProgram, ...]
    sequence: tuple[tuple[int, Instance], ...]


def group(program: LaneProgram, plan: InitPlan, mesh: Any) -> Grouped:
    """Group the pieces of a program; ``mesh`` may be abstract, or of devices that are not there.

    Raises
    ------
    PlanError
        If the plan's steps are those of another program.
    """
    exact, on_cpu = plan.numerics == "exact", plan.topology.platform == "cpu"
    layout = LaneLayout(mesh, plan.lanes_axis, plan.padded_axis_size, plan.axis_size, program.axis_name, exact, on_cpu)
    if not splits_lanes(plan.states):
        layout = layout.unsplit()
    work = program.work(on_mesh=bool(plan.mesh_axes), whole_lanes=has_whole_lanes(plan.states, plan.lanes_axis))
    places = _places(plan)

    def place(index: int | None, atom: Atom) -> Place:
        if index is not None and index < len(places):
            return places[index]
        plain = (None,) * len(atom.aval.shape)
        return Place(0, (layout.lanes_axis, *plain)) if atom.by_lane else Place(None, plain)

    # A place is part of what makes programs equal, since the compiler lays an output out for where it goes.
    order, ways = _ways(plan, work)
    programs = unique_programs(work.pieces, order, ways, place)
    number = {instance.order: n for n, each in enumerate(programs) for instance in each.instances}
    sequence = tuple((number[at], work.pieces[at][1]) for at in order)
    return Grouped(work, layout, tuple(programs), sequence)


def _ways(plan: InitPlan, work: Work) -> tuple[list[int], list[Way]]:
    """Order of the pieces, and the way of each, as planned."""
    order = [piece for step in plan.steps for piece in step.pieces]
    if sorted(order) != list(range(len(work.pieces))):
        raise PlanError(
            f"the plan's steps are not those of this program: it has {len(work.pieces)} pieces, the plan has "
            f"{len(order)}. Plan again."
        )
    step_of = {piece: step for step in plan.steps for piece in step.pieces}
    steps = [step_of[at] for at in range(len(work.pieces))]
    # Pieces that are too large to keep their last bits are compiled like those that keep them anyway.
    roundings = ["same" if step.rounding == "uneven" else step.rounding for step in steps]
    return order, [Way(s.strategy, s.slices, rounding) for s, rounding in zip(steps, roundings, strict=True)]


def _places(plan: InitPlan) -> list[Place]:
    """Place of every leaf of the states."""
    return [
        Place(None if state.spec.out_axis is None else state.spec.out_axis % len(leaf.shape), leaf.partition_spec)
        for state in plan.states
        for leaf in state.leaves
    ]
