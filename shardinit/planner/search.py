"""The planner: from a program, a topology and options to a mesh, strategies, PartitionSpecs and a peak."""

import contextlib
import gc
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from shardinit.errors import PlanError
from shardinit.planner.budget import does_not_fit
from shardinit.planner.memory import key_bytes, loads_of, pieces_of_specs, schedule
from shardinit.planner.meshes import meshes
from shardinit.planner.placement import CandidateMesh, mesh_of_plan, place_all
from shardinit.planner.rounding import MOST_WHOLE, roundings
from shardinit.planner.rules import match_rules
from shardinit.planner.score import bytes_by_mesh, ranked
from shardinit.planner.strategies import strategies
from shardinit.spec.options import PlanOptions, Rule
from shardinit.spec.plan import InitPlan, Rejected, StatePlan, Step, has_whole_lanes
from shardinit.spec.program import Cut, PieceSpec, ProgramSpec
from shardinit.spec.topology import Topology
from shardinit.wording import counted, size_text

MOST_REJECTED = 12

Size = int | PlanError  # bytes per device of a mesh, or why a rule cannot be followed on it


def plan(program: ProgramSpec, topology: Topology, options: PlanOptions) -> InitPlan:
    """Choose a mesh, and a strategy and PartitionSpec for every state. Pure: no device, no array.

    The rules of the choice are those that ``shardinit.plan`` documents.

    Raises
    ------
    PlanError
        If lanes or states do not divide as asked, a rule does not fit, or the program was traced for another number
        of lanes.
    MemoryBudgetError
        If no mesh, split or slicing fits the budget.
    """
    check_traced_size(program, options.axis_size)
    search = Search(program, match_rules(options.rules, program.states), topology, options)
    with _collector_paused():
        found = search.best()
        if found is None:
            raise does_not_fit(search)
    return found


def with_steps(planned: InitPlan, program: ProgramSpec) -> InitPlan:
    """Add the steps of a program to a plan that was made of descriptions of its states alone.

    Raises
    ------
    PlanError
        If there is a budget: nothing was known of the pieces that had to fit it.
    """
    if planned.memory_budget is not None:
        raise PlanError(
            f"memory_budget={planned.memory_budget} cannot be kept: the plan is of specs alone. Plan with what "
            "discover returns."
        )
    options = PlanOptions(planned.axis_size, numerics=planned.numerics)
    mesh = mesh_of_plan(planned)
    search = Search(program, [None] * len(program.states), planned.topology, options)
    return replace(planned, steps=search.steps(planned.states, mesh), of_program=True, digests=program.digests)


def check_traced_size(program: Any, axis_size: int) -> None:
    """Refuse lanes of another number than that a program with a named axis was traced for.

    ``program`` is a ``ProgramSpec``, or what it describes.
    """
    if program.axis_size not in (None, axis_size):
        raise PlanError(
            f"the program was traced for axis_size={program.axis_size} lanes on the axis {program.axis_name!r}, which "
            f"its collectives see, and is to be planned or compiled for axis_size={axis_size}. Call discover again "
            f"with axis_name={program.axis_name!r}, axis_size={axis_size}."
        )


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Pause Python's collector of cycles: a plan is many small objects and no cycle, a third of the time is saved."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """The meshes for a program, in the order in which they are tried; ``rules`` has one per state, or None."""

    program: ProgramSpec
    rules: Sequence[Rule | None]
    topology: Topology
    options: PlanOptions

    def with_options(self, **changed: object) -> "Search":
        """Search with other options."""
        return replace(self, options=replace(self.options, **changed))  # type: ignore[arg-type]

    def best(self) -> InitPlan | None:
        """Return the first plan that fits, of those with the fewest bytes first; None if none does."""
        rejected: list[Rejected] = []
        broken: PlanError | None = None
        budget = self.options.memory_budget
        for choices, sizes in self._levels():
            order = ranked(choices, [math.inf if isinstance(size, PlanError) else size for size in sizes])
            for place, i in enumerate(order):
                try:
                    found = self.on(choices[i])
                except PlanError as error:
                    broken = broken or error
                    rejected.append(Rejected(choices[i].mesh_axes, None, None, str(error)))
                    continue
                if budget is None or found.peak_bytes <= budget:
                    others = [_left(choices[j], sizes[j], found) for j in order[place + 1 :]]
                    return replace(found, digests=self.program.digests, rejected=_distinct([*rejected, *others]))
                why = f"its peak of {size_text(found.peak_bytes)} does not fit memory_budget={size_text(budget)}"
                rejected.append(Rejected(choices[i].mesh_axes, found.bytes_per_device, found.peak_bytes, why))
        if broken is not None and all(r.peak_bytes is None for r in rejected):
            raise broken
        return None

    def _levels(self) -> Iterator[tuple[list[CandidateMesh], list[Size]]]:
        """Yield meshes and their bytes per device, by effort."""
        for choices in meshes(self.topology, self.options):
            if choices:
                yield choices, self._sizes(choices)

    def _sizes(self, choices: list[CandidateMesh]) -> list[Size]:
        """Bytes on one device, per mesh; without rules counted for all meshes at once."""
        if len(choices) == 1:
            return [0]
        if not any(self.rules):
            return [*bytes_by_mesh(self.program.states, choices)]
        return [self._bytes(mesh) for mesh in choices]

    def _bytes(self, mesh: CandidateMesh) -> Size:
        try:
            states = place_all(self.program.states, self.rules, mesh)
        except PlanError as error:
            return error
        return sum(s.bytes_per_device for s in states if s.spec.kind != "attribute")

    def all(self) -> list[InitPlan]:
        """Every plan, fitting or not."""
        found = []
        for choices, _ in self._levels():
            for mesh in choices:
                with contextlib.suppress(PlanError):
                    found.append(self.on(mesh))
        return found

    def on(self, mesh: CandidateMesh) -> InitPlan:
        """Plan for one mesh."""
        states = place_all(self.program.states, self.rules, mesh)
        states = _made_together(self._cut(states, mesh).pieces, states)
        options = self.options
        return InitPlan(
            axis_size=mesh.axis_size,
            topology=self.topology,
            mesh_axes=mesh.mesh_axes,
            lanes_axis=mesh.lanes,
            numerics=options.numerics,
            states=states,
            reason=mesh.reason + _cost_of_padding(states, mesh),
            remainder=options.remainder,
            padded_axis_size=mesh.padded,
            memory_budget=options.memory_budget,
            steps=self.steps(states, mesh),
            of_program=self.program.whole is not None,
        )

    def steps(self, states: Sequence[StatePlan], mesh: CandidateMesh) -> tuple[Step, ...]:
        """Order the pieces of states that are placed, and decide how each is computed."""
        cut = self._cut(states, mesh)
        pieces, tables, budget = cut.pieces, cut.key_tables, self.options.memory_budget
        names = _first_names(pieces, states)
        exact = self.options.numerics == "exact"
        steps: tuple[Step, ...] = ()
        # Small pieces whose bits depend on their place are computed whole on every device, if the budget allows it.
        for most_whole in (MOST_WHOLE, 0) if exact else (0,):
            rounded = roundings(pieces, states, tables, mesh, most_whole, exact)
            chosen = strategies(pieces, states, mesh, rounded, self.program.axis_name)
            keys = key_bytes(tables, states, mesh, rounded)
            steps = schedule(loads_of(pieces, states, mesh, rounded, chosen), keys, names, mesh, budget)
            if budget is None or max((s.peak for s in steps), default=0) <= budget:
                break
        return steps

    def _cut(self, states: Sequence[StatePlan], mesh: CandidateMesh) -> Cut:
        """Pieces and key tables, as far as they are known."""
        cut = self.program.whole if has_whole_lanes(states, mesh.lanes) else self.program.split
        return cut or Cut(pieces_of_specs(states, mesh.platform), ())


def _cost_of_padding(states: Sequence[StatePlan], mesh: CandidateMesh) -> str:
    if mesh.padded == mesh.axis_size:
        return ""
    own = sum(s.bytes_per_device for s in states if s.spec.kind != "attribute")
    whole = sum(
        math.prod(leaf.shape) * spec.itemsize
        for s in states
        if s.spec.out_axis is not None
        for leaf, spec in zip(s.leaves, s.spec.leaves, strict=True)
    )
    return (
        f"; every device computes {counted(mesh.padded // mesh.shards, 'lane')} and holds {size_text(own)}, where an "
        f"even share is {size_text(whole / math.prod(mesh.axes.values()))}"
    )


def _made_together(pieces: Sequence[PieceSpec], states: tuple[StatePlan, ...]) -> tuple[StatePlan, ...]:
    """Where one piece makes states that rules place differently, say that devices exchange parts of them."""
    owners = [number for number, state in enumerate(states) for _ in state.leaves]
    changed = list(states)
    for piece in pieces:
        own = {owners[leaf] for leaf in piece.leaves}
        batched = {n for n in own if states[n].spec.out_axis is not None}
        if len({states[n].strategy for n in batched}) > 1:
            for n in batched:
                more = "made in one piece with states that are placed differently, so devices communicate"
                reason = f"{states[n].reason}; {more}"
                changed[n] = replace(states[n], strategy="gspmd", reason=reason)
    return tuple(changed)


def _left(mesh: CandidateMesh, size: Size, taken: InitPlan) -> Rejected:
    """Describe a mesh that was not tried."""
    if isinstance(size, PlanError):
        return Rejected(mesh.mesh_axes, None, None, str(size))
    same = "as many bytes" if size == taken.bytes_per_device else size_text(size)
    text = f"would leave {same} and {counted(mesh.padded // mesh.shards, 'lane')} on a device"
    return Rejected(mesh.mesh_axes, size, None, text)


def _distinct(rejected: Sequence[Rejected]) -> tuple[Rejected, ...]:
    """Keep one entry per mesh, the last: what was tried hardest."""
    return tuple({r.mesh_axes: r for r in rejected}.values())[:MOST_REJECTED]


def _first_names(pieces: Sequence[PieceSpec], states: Sequence[StatePlan]) -> list[str]:
    """Name each piece by the first state that it makes."""
    owners = [state.spec.name for state in states for _ in state.leaves]
    read = {number for piece in pieces for number in piece.reads}

    def name(piece: PieceSpec) -> str:
        if piece.leaves:
            return owners[piece.leaves[0]]
        if piece.local and piece.calls_back != "no":
            return "(asked once)"
        return "(handed on)" if any(n in read for n, _ in piece.makes) else "(check)"

    return [name(piece) for piece in pieces]
