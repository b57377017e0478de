"""The lane program: one lane's init, RNG keys in, leaves out, with what is needed to write it back."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from brainstate import State

from shardinit.discover.graph import Change, Snapshot
from shardinit.drawing import for_terminal
from shardinit.lane.equations import Atom, Equation, Variable
from shardinit.lane.key_rows import key_words
from shardinit.lane.program_digest import output_digests
from shardinit.lane.work import Work, work_of
from shardinit.plan.specs import PieceSpec, StateSpec
from shardinit.private_jax import Settings, settings
from shardinit.wording import counted, folded


@dataclass(frozen=True, slots=True)
class Output:
    """What a spec stands for: the atoms of its leaves, and the State or attribute they go to.

    Attributes
    ----------
    spec
        Its description.
    atoms
        One per leaf.
    state
        The State object; None for an attribute.
    tree
        How the leaves make up the value.
    """

    spec: StateSpec
    atoms: tuple[Atom, ...]
    state: State | None
    tree: Any


@dataclass(frozen=True, slots=True)
class RandomInput:
    """A RandomState that init draws from: its key is an input of the program."""

    state: State
    variable: Variable


@dataclass(frozen=True, slots=True, eq=False)
class LaneProgram:
    """One lane's init, traced.

    Attributes
    ----------
    outputs
        States in the order of their creation, then states that were written, then attributes.
    axis_order
        Every out axis that the caller's filters can give, in the order of the returned dictionary.
    random_inputs
        The RandomStates whose keys are split over the lanes.
    effects
        Equations with effects: checks, prints.
    notes
        What a user should know about this init, in sentences.
    level
        Trace level of the caller, given to the new states.
    seconds
        Time of the trace.
    axis_name
        Name of the mapped axis for collectives, if any.
    axis_size
        Number of lanes that it was traced for; None without ``axis_name``: any number.
    settings
        JAX's settings around init: keys are split over the lanes under these.
    snapshot, changes
        The contents of the module before init, and what init changed in them.
    works
        What ``work`` has cut, kept.
    """

    outputs: tuple[Output, ...]
    axis_order: tuple[int | None, ...]
    random_inputs: tuple[RandomInput, ...]
    effects: tuple[Equation, ...]
    notes: tuple[str, ...]
    level: int
    seconds: float
    axis_name: Any = None
    axis_size: int | None = None
    settings: Settings = field(default_factory=settings)
    snapshot: Snapshot | None = None
    changes: tuple[Change, ...] = ()
    works: dict[tuple[bool, bool], Work] = field(default_factory=dict, repr=False)

    def work(self, *, on_mesh: bool, whole_lanes: bool) -> Work:
        """Cut into pieces; once for the planner and the compiler."""
        if (on_mesh, whole_lanes) not in self.works:
            made = work_of(self.outputs, self.random_inputs, self.effects, on_mesh=on_mesh, whole_lanes=whole_lanes)
            self.works[on_mesh, whole_lanes] = made
        return self.works[on_mesh, whole_lanes]

    def pieces(self, *, on_mesh: bool, whole_lanes: bool) -> tuple[tuple[PieceSpec, ...], tuple[tuple[int, int], ...]]:
        """Describe the pieces, and rows and words of the key tables, as the planner needs them."""
        work = self.work(on_mesh=on_mesh, whole_lanes=whole_lanes)
        return work.specs, tuple((table.rows_held, key_words(table.dtype)) for table in work.tables)

    def digests(self) -> tuple[str, ...]:
        """Digest what makes each output: equal in every process that runs the same code."""
        return output_digests([o.atoms for o in self.outputs], [r.variable for r in self.random_inputs])

    @property
    def specs(self) -> tuple[StateSpec, ...]:
        """Descriptions of the outputs, all that the planner needs."""
        return tuple(o.spec for o in self.outputs)

    def __str__(self) -> str:
        rows = [
            f"LaneProgram: {counted(len(self.outputs), 'output')}, {counted(len(self.random_inputs), 'random state')}"
        ]
        rows += [f"  {spec} -> axis {spec.out_axis}" for spec in self.specs[:20]]
        if len(self.outputs) > 20:
            rows.append(f"  ... and {len(self.outputs) - 20} more")
        return for_terminal("\n".join([*rows, *(f"  note: {folded(n)}" for n in self.notes)]))


def listed(names: Sequence[str], most: int = 5) -> str:
    """Join names for a sentence, folding a long list."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
