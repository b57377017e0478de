"""The planner: from descriptions of states and devices to a mesh, strategies, PartitionSpecs and a peak."""

import contextlib
import gc
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast, get_args

from shardinit.errors import ArgumentError, ArgumentTypeError, PlanError
from shardinit.plan.budget import does_not_fit, read_budget
from shardinit.plan.factor import meshes
from shardinit.plan.init_plan import InitPlan, Numerics, Rejected, Remainder, StatePlan, Step, Strategy, has_whole_lanes
from shardinit.plan.memory import key_bytes, loads_of, pieces_of_specs, schedule
from shardinit.plan.placement import MeshChoice, place_all
from shardinit.plan.rounding import MOST_WHOLE, roundings
from shardinit.plan.rules import Placed, match_rules
from shardinit.plan.score import bytes_by_mesh, ranked
from shardinit.plan.specs import MOST_ELEMENTS, LeafSpec, StateSpec
from shardinit.plan.topology import Topology
from shardinit.wording import counted, kind_of, size_text

MOST_REJECTED = 12
MOST_LANES = 2**32

Size = int | PlanError  # bytes per device of a mesh, or why a rule cannot be followed on it


def plan(
    program_or_specs: Any,
    topology: Topology | str,
    *,
    axis_size: int,
    memory_budget: int | str | None = None,
    rules: Any = (),
    strategy: str = "auto",
    remainder: str = "factor",
    numerics: str = "exact",
    lanes_axis: str | None = None,
) -> InitPlan:
    """Choose a mesh, and a strategy and PartitionSpec for every state. Pure: no device, no array.

    The lanes are split over as many devices as divide them, or over as many groups of `model` devices, inside of
    a node or slice, that split single lanes of large states (those of 1 MiB or more on a device otherwise). Of
    these meshes the one that leaves the fewest bytes on a device is taken; of those that leave at most an eighth
    more, the one with the fewest lanes on a device, then the fewest devices. Devices that would hold nothing but
    copies stay idle, except on TPU and where a node would be left without any. The peak of the whole
    initialization fits the budget, or the next mesh is tried, then smaller states are split too.

    Parameters
    ----------
    program_or_specs
        A ``LaneProgram``, or the ``StateSpec`` of every state (each then counts as one normal draw).
    topology
        The devices, and the caller's mesh if there is one; or a name such as ``"h100:4x8"``.
    axis_size
        Number of lanes.
    memory_budget
        Most bytes per device at any moment, an int or a text such as ``"12GiB"``; ``"unlimited"``. None takes
        what the topology leaves, less 5%, where it is known: this machine's CPU devices share the host's memory.
    rules
        Pairs of filter and placement; the first that matches a state counts. A filter is anything that
        ``brainstate.util.filter`` takes, or a glob over the path (``"layers/*/weight"``). A placement is
        ``"replicate"``, a strategy, or a mesh axis, None or ``...`` (left open) per array axis, lanes included.
    strategy
        ``auto``, or one of ``vmap``, ``shard_map``, ``gspmd``, ``pmap`` for every batched state.
    remainder
        For lanes that do not divide: ``factor`` (the largest common factor splits them), ``replicate`` (every
        device holds all), ``pad`` (more lanes are computed and cut off; another axis of each state is split where one
        divides, else every device holds all of it; the plan says what that costs), ``error``.
    numerics
        ``exact`` (bits of brainstate's eager ``vmap2_new_states``) or ``fused`` (XLA may fuse).
    lanes_axis
        Mesh axis of the caller's mesh that splits the lanes; found by itself if None.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If an argument cannot be right.
    PlanError
        If lanes or states do not divide as asked, a rule does not fit, or the program was traced for another
        number of lanes (``discover`` with an ``axis_name``).
    MemoryBudgetError
        If no mesh, split or slicing fits the budget.

    Examples
    --------
    >>> from shardinit import LeafSpec
    >>> leaf = LeafSpec((100,), "float32", 4)
    >>> p = plan([StateSpec(("v",), "ShortTermState", (leaf,))], Topology("cpu", 8), axis_size=64)
    >>> p.states[0].strategy, p.states[0].leaves[0].partition_spec, p.bytes_per_device
    ('shard_map', ('lanes', None), 3200)
    """
    axis_size = check_axis_size(axis_size)
    if isinstance(topology, str):
        topology = Topology.named(topology)
    if not isinstance(topology, Topology):
        raise ArgumentTypeError(
            f"topology is {kind_of(topology)}. Pass a Topology, such as Topology.local(), or a name such as 'h100:4x8'."
        )
    for name, value, known in (
        ("strategy", strategy, ("auto", *get_args(Strategy))),
        ("remainder", remainder, get_args(Remainder)),
        ("numerics", numerics, get_args(Numerics)),
    ):
        if value not in known:
            raise ArgumentError(f"{name}={value!r} is not known. Use one of {', '.join(map(repr, known))}.")
    check_traced_size(program_or_specs, axis_size)
    budget = read_budget(memory_budget, topology)
    work = _Work.of(program_or_specs, rules)
    search = _Search(work, topology, strategy, remainder, numerics, lanes_axis, budget)
    with _collector_paused():
        found = search.best(axis_size)
        if found is None:
            raise does_not_fit(search, axis_size)
    return found


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Pause Python's collector of cycles: a plan is many small objects and no cycle, a third of the time is spared."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def check_axis_size(axis_size: Any) -> int:
    """Refuse what is no integer of at least 1, before anything is traced or cached."""
    index = getattr(type(axis_size), "__index__", None)
    if isinstance(axis_size, bool) or index is None or getattr(axis_size, "shape", ()) != ():
        raise ArgumentTypeError(
            f"axis_size={axis_size!r} is {kind_of(axis_size)}. "
            "Pass the number of lanes as an int, such as axis_size=64."
        )
    if (size := int(index(axis_size))) < 1:
        raise ArgumentError(f"axis_size={size} has no lanes. Pass at least axis_size=1.")
    if size > MOST_LANES:
        raise ArgumentError(f"axis_size={size} is more than an array can index. Pass at most axis_size={MOST_LANES}.")
    return size


def check_traced_size(program: Any, axis_size: int) -> None:
    """Refuse lanes of another number than that a program with a named axis was traced for."""
    traced = getattr(program, "axis_size", None)
    if traced not in (None, axis_size):
        raise PlanError(
            f"the program was traced for axis_size={traced} lanes on the axis {program.axis_name!r}, which its "
            f"collectives see, and is to be planned or compiled for axis_size={axis_size}. Call discover again with "
            f"axis_name={program.axis_name!r}, axis_size={axis_size}."
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Work:
    """What is to be placed: descriptions of states, their rules, and the program that tells the pieces."""

    specs: tuple[StateSpec, ...]
    rules: Sequence[Placed | None]
    program: Any

    @classmethod
    def of(cls, program_or_specs: Any, rules: Any) -> "_Work":
        program = program_or_specs if hasattr(program_or_specs, "pieces") else None
        given = getattr(program_or_specs, "specs", program_or_specs)
        if not isinstance(given, Iterable) or isinstance(given, (str, dict)):
            raise ArgumentTypeError(
                f"cannot plan {kind_of(given)}. Pass what discover(module) returns, or the StateSpec of every state."
            )
        specs = tuple(given)
        for spec in specs:
            if not isinstance(spec, StateSpec):
                raise ArgumentTypeError(
                    f"cannot plan {kind_of(spec)}. Pass what discover returns, or the StateSpec of every state."
                )
            if not isinstance(spec.path, tuple) or not all(isinstance(leaf, LeafSpec) for leaf in spec.leaves):
                raise ArgumentTypeError(f"cannot plan {spec!r}: path is to be a tuple of str, leaves LeafSpecs.")
        states = specs if program is None else [o.state for o in program.outputs]
        for spec in specs:
            if not all(0 <= size <= MOST_ELEMENTS for leaf in spec.leaves for size in (*leaf.shape, leaf.itemsize)):
                raise ArgumentError(
                    f"cannot plan {spec}: each size must be between 0 and 2**63 - 1. Mend the arguments of init."
                )
        return cls(specs, match_rules(rules, specs, states), program)

    def pieces(self, states: Sequence[StatePlan], mesh: MeshChoice):
        """Pieces and key tables, as far as they are known."""
        if self.program is None:
            return pieces_of_specs(states, mesh.platform), ()
        whole_lanes = has_whole_lanes(states, mesh.lanes)
        return self.program.pieces(on_mesh=bool(mesh.axes), whole_lanes=whole_lanes)


@dataclass(frozen=True, slots=True, eq=False)
class _Search:
    """The meshes for some work, in the order in which they are tried."""

    work: _Work
    topology: Topology
    strategy: str
    remainder: str
    numerics: str
    lanes_axis: str | None
    budget: int | None

    def best(self, axis_size: int) -> InitPlan | None:
        """Return the first plan that fits, of those with the fewest bytes first; None if none does."""
        rejected: list[Rejected] = []
        broken: PlanError | None = None
        for choices, sizes in self.levels(axis_size):
            order = ranked(choices, [math.inf if isinstance(size, PlanError) else size for size in sizes])
            for place, i in enumerate(order):
                try:
                    found = self.on(choices[i])
                except PlanError as error:
                    broken = broken or error
                    rejected.append(Rejected(choices[i].mesh_axes, None, None, str(error)))
                    continue
                if self.budget is None or found.peak_bytes <= self.budget:
                    others = [_left(choices[j], sizes[j], found) for j in order[place + 1 :]]
                    digests = () if self.work.program is None else self.work.program.digests()
                    return replace(found, digests=digests, rejected=_distinct([*rejected, *others]))
                why = f"its peak of {size_text(found.peak_bytes)} does not fit memory_budget={size_text(self.budget)}"
                rejected.append(Rejected(choices[i].mesh_axes, found.bytes_per_device, found.peak_bytes, why))
        if broken is not None and all(r.peak_bytes is None for r in rejected):
            raise broken
        return None

    def levels(self, axis_size: int) -> Iterator[tuple[list[MeshChoice], list[Size]]]:
        """Yield meshes and their bytes per device, by effort."""
        for choices in meshes(self.topology, axis_size, self.strategy, self.remainder, self.lanes_axis):
            if choices:
                yield choices, self.sizes(choices)

    def sizes(self, choices: list[MeshChoice]) -> list[Size]:
        """Bytes on one device, per mesh; without rules counted for all meshes at once."""
        if len(choices) == 1:
            return [0]
        if not any(self.work.rules):
            return [*bytes_by_mesh(self.work.specs, choices)]
        return [self._bytes(mesh) for mesh in choices]

    def _bytes(self, mesh: MeshChoice) -> Size:
        try:
            states = place_all(self.work.specs, self.work.rules, mesh)
        except PlanError as error:
            return error
        return sum(s.bytes_per_device for s in states if s.spec.kind != "attribute")

    def all(self, axis_size: int) -> list[InitPlan]:
        """Every plan, fitting or not."""
        found = []
        for choices, _ in self.levels(axis_size):
            for mesh in choices:
                try:
                    found.append(self.on(mesh))
                except PlanError:
                    continue
        return found

    def on(self, mesh: MeshChoice) -> InitPlan:
        """Plan for one mesh."""
        states = place_all(self.work.specs, self.work.rules, mesh)
        pieces, tables = self.work.pieces(states, mesh)
        states = _made_together(pieces, states)
        names = _first_names(pieces, states)
        steps: tuple[Step, ...] = ()
        exact = self.numerics == "exact"
        for most_whole in (MOST_WHOLE, 0) if exact else (0,):
            rounded = roundings(pieces, states, tables, mesh, most_whole, exact)
            keys = key_bytes(tables, states, mesh, rounded)
            steps = schedule(loads_of(pieces, states, mesh, rounded), keys, names, mesh, self.budget)
            if self.budget is None or max((s.peak for s in steps), default=0) <= self.budget:
                break
        return InitPlan(
            axis_size=mesh.axis_size,
            topology=self.topology,
            mesh_axes=mesh.mesh_axes,
            lanes_axis=mesh.lanes,
            numerics=cast(Numerics, self.numerics),
            states=states,
            reason=mesh.reason + _cost_of_padding(states, mesh),
            remainder=cast(Remainder, self.remainder),
            padded_axis_size=mesh.padded,
            memory_budget=self.budget,
            steps=steps,
            of_program=self.work.program is not None,
            program=self.work.program,
        )


def _cost_of_padding(states: Sequence[StatePlan], mesh: MeshChoice) -> str:
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


def _made_together(pieces, states: tuple[StatePlan, ...]) -> tuple[StatePlan, ...]:
    """Say of states that one piece makes and that lie otherwise (by rules) that devices exchange parts of them."""
    owners = [number for number, state in enumerate(states) for _ in state.leaves]
    changed = list(states)
    for piece in pieces:
        own = {owners[leaf] for leaf in piece.leaves}
        batched = {n for n in own if states[n].spec.out_axis is not None}
        if len({states[n].strategy for n in batched}) > 1:
            for n in batched:
                reason = f"{states[n].reason}; made in one piece with states that lie otherwise, so devices communicate"
                changed[n] = replace(states[n], strategy="gspmd", reason=reason)
    return tuple(changed)


def _left(mesh: MeshChoice, size: Size, taken: InitPlan) -> Rejected:
    """Describe a mesh that was not tried."""
    if isinstance(size, PlanError):
        return Rejected(mesh.mesh_axes, None, None, str(size))
    same = "as many bytes" if size == taken.bytes_per_device else size_text(size)
    text = f"would leave {same} and {counted(mesh.padded // mesh.shards, 'lane')} on a device"
    return Rejected(mesh.mesh_axes, size, None, text)


def _distinct(rejected: Sequence[Rejected]) -> tuple[Rejected, ...]:
    """Keep one entry per mesh, the last: what was tried hardest."""
    return tuple({r.mesh_axes: r for r in rejected}.values())[:MOST_REJECTED]


def _first_names(pieces, states: Sequence[StatePlan]) -> list[str]:
    """Name each piece by the first state that it makes."""
    owners = [state.spec.name for state in states for _ in state.leaves]
    read = {number for piece in pieces for number in piece.reads}

    def name(piece) -> str:
        if piece.leaves:
            return owners[piece.leaves[0]]
        if piece.local and piece.calls_back != "no":
            return "(asked once)"
        return "(handed on)" if any(n in read for n, _ in piece.makes) else "(check)"

    return [name(piece) for piece in pieces]
