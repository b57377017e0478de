"""The lane program: one lane's init as equations, RNG keys in, arrays out. It knows no State and no module."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import jax

from shardinit.backend.private_jax import Settings, settings
from shardinit.lane.equations import Atom, Equation, Variable
from shardinit.lane.key_rows import key_words
from shardinit.lane.program_digest import output_digests
from shardinit.lane.work import Work, adds_up, work_of
from shardinit.spec.program import Cut, KeyTableSpec, ProgramSpec
from shardinit.spec.states import StateSpec
from shardinit.wording import counted, folded


@dataclass(frozen=True, slots=True)
class Output:
    """What a spec stands for: the atoms of its leaves."""

    spec: StateSpec
    atoms: tuple[Atom, ...]


@dataclass(frozen=True, slots=True, eq=False)
class LaneProgram:
    """One lane's init, traced.

    Attributes
    ----------
    outputs
        States in the order of their creation, then states that were written, then attributes.
    keys
        Its inputs: one key for each random state that init draws from, which are split over the lanes.
    effects
        Equations with effects: checks, prints.
    axis_name
        Name of the mapped axis for collectives, if any.
    axis_size
        Number of lanes that it was traced for; None without ``axis_name``: any number.
    settings
        JAX's settings around init: keys are split over the lanes under these.
    """

    outputs: tuple[Output, ...]
    keys: tuple[Variable, ...]
    effects: tuple[Equation, ...] = ()
    axis_name: Hashable = None
    axis_size: int | None = None
    settings: Settings = field(default_factory=settings)
    _kept: dict[Any, Any] = field(default_factory=dict, repr=False)

    def work(self, *, on_mesh: bool, whole_lanes: bool) -> Work:
        """Cut into pieces; once for the planner and the compiler."""
        whole_lanes = whole_lanes or not self._adds_up()  # without sums both cuts are the same
        if (on_mesh, whole_lanes) not in self._kept:
            made = work_of(self.outputs, self.keys, self.effects, on_mesh=on_mesh, whole_lanes=whole_lanes)
            self._kept[on_mesh, whole_lanes] = made
        return self._kept[on_mesh, whole_lanes]

    def _adds_up(self) -> bool:
        if "adds up" not in self._kept:
            read = [atom for effect in self.effects for atom in effect.inputs]  # checks are cut as well
            self._kept["adds up"] = adds_up([*self.atoms, *read])
        return self._kept["adds up"]

    def spec(self, *, on_mesh: bool) -> ProgramSpec:
        """Describe it, as the planner needs it; ``on_mesh`` is whether it is planned for one."""
        if ("spec", on_mesh) not in self._kept:
            self._kept["spec", on_mesh] = ProgramSpec(
                states=self.states,
                whole=_cut(self.work(on_mesh=on_mesh, whole_lanes=True)),
                split=_cut(self.work(on_mesh=on_mesh, whole_lanes=not on_mesh)),  # one device splits nothing
                digests=output_digests([o.atoms for o in self.outputs], self.keys),
                axis_name=self.axis_name,  # type: ignore[arg-type]  # only compared
                axis_size=self.axis_size,
            )
        return self._kept["spec", on_mesh]

    @property
    def states(self) -> tuple[StateSpec, ...]:
        """Descriptions of the outputs."""
        return tuple(o.spec for o in self.outputs)

    @property
    def atoms(self) -> list[Atom]:
        """Atoms of all outputs, one per leaf, in order."""
        return [atom for output in self.outputs for atom in output.atoms]


def _cut(work: Work) -> Cut:
    return Cut(work.specs, tuple(KeyTableSpec(table.rows_held, key_words(table.dtype)) for table in work.tables))


class Sink(Protocol):
    """Who gives a program its keys, and takes what it makes. A front end has one for each target."""

    def keys(self) -> list[jax.Array]:
        """Return the current key of each of the program's inputs."""

    def commit(self, values: Sequence[Any], next_keys: Sequence[jax.Array], *, again: bool = False) -> None:
        """Take everything, or nothing if that fails.

        Parameters
        ----------
        values
            One array per leaf of the program's outputs; None leaves what the trace has.
        next_keys
            The next key of each input.
        again
            Whether values of the same program were taken before.
        """

    def states_by_axis(self) -> dict[int | None, list[Any]]:
        """Return what was written, by the axis of the lanes; empty where a target has no states."""


@dataclass(frozen=True, slots=True, eq=False)
class Traced:
    """What a front end makes of a target.

    Attributes
    ----------
    program
        One lane's init.
    sink
        Who takes the arrays.
    objects
        What the caller's filters look at, one per output: a State, or None.
    notes
        What a user should know about this init, in sentences.
    seconds
        Time of the trace.
    """

    program: LaneProgram
    sink: Sink
    objects: tuple[Any, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def specs(self) -> tuple[StateSpec, ...]:
        """Descriptions of the states, in the order of the program's outputs."""
        return self.program.states

    def __str__(self) -> str:
        outputs, keys = self.program.outputs, self.program.keys
        rows = [f"LaneProgram: {counted(len(outputs), 'output')}, {counted(len(keys), 'random state')}"]
        rows += [f"  {spec} -> axis {spec.out_axis}" for spec in self.specs[:20]]
        if len(outputs) > 20:
            rows.append(f"  ... and {len(outputs) - 20} more")
        from shardinit.report.terminal import for_terminal

        return for_terminal("\n".join([*rows, *(f"  note: {folded(n)}" for n in self.notes)]))
