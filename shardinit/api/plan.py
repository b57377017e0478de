"""Planning, for users: arguments read and checked, then the planner."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from shardinit.api.rules import read_rules
from shardinit.errors import ArgumentError, ArgumentTypeError
from shardinit.planner import search
from shardinit.planner.budget import read_budget
from shardinit.spec.options import AskedStrategy, Numerics, PlanOptions, Remainder, check_axis_size, check_choice
from shardinit.spec.plan import InitPlan
from shardinit.spec.program import ProgramSpec
from shardinit.spec.states import MOST_ELEMENTS, LeafSpec, StateSpec
from shardinit.spec.topology import Topology
from shardinit.wording import kind_of


def plan(
    program_or_specs: Any,
    topology: Topology | str,
    *,
    axis_size: int,
    memory_budget: int | str | None = None,
    rules: Any = (),
    strategy: AskedStrategy = "auto",
    remainder: Remainder = "factor",
    numerics: Numerics = "exact",
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
        What ``discover`` returns, or the ``StateSpec`` of every state (each then counts as one normal draw).
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
    for name, value, choices in (
        ("strategy", strategy, AskedStrategy),
        ("remainder", remainder, Remainder),
        ("numerics", numerics, Numerics),
    ):
        check_choice(name, value, choices)
    program = getattr(program_or_specs, "program", None) if hasattr(program_or_specs, "objects") else None
    if program is not None:
        search.check_traced_size(program, axis_size)
    options = PlanOptions(
        axis_size, read_budget(memory_budget, topology), (), strategy, remainder, numerics, lanes_axis
    )
    if program is None:
        states = _checked(program_or_specs)
        rules = read_rules(rules, states, states)
        return search.plan(ProgramSpec.of_states(states), topology, replace(options, rules=rules))
    _check_sizes(program.states)
    rules = read_rules(rules, program.states, program_or_specs.objects)
    spec = program.spec(on_mesh=topology.mesh_axes != ())
    planned = search.plan(spec, topology, replace(options, rules=rules))
    return replace(planned, program=program)


def _checked(specs: Any) -> tuple[StateSpec, ...]:
    """Refuse what is not a collection of descriptions of states."""
    if not isinstance(specs, Iterable) or isinstance(specs, (str, dict)):
        raise ArgumentTypeError(
            f"cannot plan {kind_of(specs)}. Pass what discover(module) returns, or the StateSpec of every state."
        )
    states = tuple(specs)
    for state in states:
        if not isinstance(state, StateSpec):
            raise ArgumentTypeError(
                f"cannot plan {kind_of(state)}. Pass what discover returns, or the StateSpec of every state."
            )
        if not isinstance(state.path, tuple) or not all(isinstance(leaf, LeafSpec) for leaf in state.leaves):
            raise ArgumentTypeError(f"cannot plan {state!r}: path must be a tuple of str, and leaves LeafSpecs.")
    _check_sizes(states)
    return states


def _check_sizes(states: Iterable[StateSpec]) -> None:
    for state in states:
        if not all(0 <= size <= MOST_ELEMENTS for leaf in state.leaves for size in (*leaf.shape, leaf.itemsize)):
            raise ArgumentError(
                f"cannot plan {state}: each size must be between 0 and 2**63 - 1. Change the arguments of init."
            )
