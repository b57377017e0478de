"""What a user should know about the values of a compiled program, in sentences."""

from collections.abc import Iterable, Sequence

from shardinit.lane.equations import UNKNOWN, Atom
from shardinit.lane.primitives import accumulates, contains, unknown_primitives
from shardinit.lane.program import LaneProgram
from shardinit.lane.work import Work
from shardinit.planner.placement import wished_axes
from shardinit.planner.rounding import LEAST_ROW, VECTOR, pieces_rounded
from shardinit.spec.plan import InitPlan
from shardinit.wording import UNFOLLOWED


def numerics_notes(program: LaneProgram, plan: InitPlan, work: Work) -> tuple[str, ...]:
    """Say where a last bit can differ from brainstate's, and what is not known."""
    notes = _unknown_notes(program, work)
    if plan.numerics == "fused":
        text = "numerics='fused': XLA fuses over operation boundaries, so a last bit can differ from brainstate's"
        return (*notes, text)
    sums = [v for e in work.equations if accumulates(e) and not contains(e, frozenset({UNKNOWN})) for v in e.outputs]
    splits = any(state.strategy == "gspmd" for state in plan.states)
    if plan.lane_shards > 1 or splits or any(step.slices > 1 for step in plan.steps):
        text = "sums whose last bit the backend itself lets depend on the number of lanes at once"
        notes += [f"{text}: {', '.join(names)}" for names in _made_from(sums, program, work)]
    named = pieces_rounded(plan, "uneven")
    reusing = {at for at, spec in enumerate(work.specs) if spec.never_exact}
    text = (
        "a jit that divides by what it also reads in another way, which XLA may compile to another last bit in a "
        "larger program"
    )
    notes += [f"{text}: {', '.join(names)}" for names in _made_from(_outputs(reusing, work), program, work)]
    beside = {at for at in named - reusing if work.specs[at].never_even}
    text = "what XLA compiles differently beside other operations or for fewer lanes, so that last bits can differ"
    notes += [f"{text}: {', '.join(names)}" for names in _made_from(_outputs(beside, work), program, work)]
    text = "parts that do not fill the processor's vectors, where it may round a last bit the other way"
    more = f"A device's elements should be a multiple of {VECTOR}, and the last axis {LEAST_ROW} or more"
    parts = named - reusing - beside
    notes += [f"{text}: {', '.join(names)}. {more}" for names in _made_from(_outputs(parts, work), program, work)]
    return tuple(notes)


def placement_notes(plan: InitPlan) -> tuple[str, ...]:
    """Name the states that init wants to be placed elsewhere than they are."""
    named = [
        state.spec.name
        for state in plan.states
        if any(
            placed.partition_spec[axis] != name
            for leaf, placed in zip(state.spec.leaves, state.leaves, strict=True)
            for axis, name in wished_axes(leaf, state.spec.out_axis).items()
        )
    ]
    return (f"{UNFOLLOWED}: {', '.join(named)}",) if named else ()


def _outputs(pieces: Iterable[int], work: Work) -> list[Atom]:
    return [atom for at in pieces for _, atom in work.pieces[at][1].outputs]


def _unknown_notes(program: LaneProgram, work: Work) -> list[str]:
    unknown = [e for e in work.equations if contains(e, frozenset({UNKNOWN}))]
    primitives = ", ".join(sorted(set().union(*map(unknown_primitives, unknown))))
    text = f"primitives that shardinit does not know ({primitives}), which may depend on the lanes that a device has"
    made = [v for e in unknown for v in e.outputs]
    return [f"{text}: {', '.join(names)}" for names in _made_from(made, program, work)]


def _made_from(atoms: Sequence[Atom], program: LaneProgram, work: Work) -> list[list[str]]:
    """Names of the outputs that some values go into, also by way of other pieces; no list if there are none."""
    reached = set(atoms)
    for equation in work.equations:
        if not reached.isdisjoint(equation.inputs):
            reached.update(equation.outputs)
    names = [o.spec.name for o in program.outputs if not reached.isdisjoint(o.atoms)]
    return [names] if names else []
