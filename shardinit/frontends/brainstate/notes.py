"""What a user should know about an init, in sentences."""

from collections.abc import Sequence

from shardinit.frontends.brainstate.containers import GENERATOR
from shardinit.frontends.brainstate.host_objects import is_only_seeded
from shardinit.frontends.brainstate.outputs import Found
from shardinit.frontends.brainstate.snapshot import Change
from shardinit.lane.equations import Variable
from shardinit.lane.trace import LaneTrace
from shardinit.wording import UNFOLLOWED, path_text


def _drawn(draws: tuple[dict[str, None], set[str]], changes: Sequence[Change]) -> list[str]:
    """What in init drew random numbers on the host: lines that make generators, names of those that moved."""
    lines, seeded = draws
    moved = {path_text(c.path): c.after for c in changes if c.contents is GENERATOR and c.before is not None}
    return [*lines, *(name for name, after in moved.items() if name not in seeded or not is_only_seeded(after))]


def stuck_note(names: list[str]) -> str:
    """Name the iterators that init advanced and that cannot be put back."""
    return f"init advanced iterators, which Python cannot put back: {', '.join(names)}"


def notes_of(
    trace: LaneTrace,
    outputs: Sequence[Found],
    draws: tuple[dict[str, None], set[str]],
    changes: Sequence[Change],
    stuck: list[str],
    added: list[str],
) -> tuple[str, ...]:
    """Name what init asked for, drew or made in another way than states are usually made.

    Parameters
    ----------
    trace, outputs, changes
        What was traced.
    draws
        Lines that make generators on the host, and the global ones that were seeded meanwhile.
    stuck
        Iterators that could not be put back.
    added
        Paths of modules that init made.
    """
    drawn = _drawn(draws, changes)
    notes = [
        f"evaluated on the way, since init code asks for its value: {size} bytes at {line}"
        for line, size in trace.concretized.items()
    ]
    asked = trace.placements
    notes += [f"{UNFOLLOWED}: {line}" for line, wishes in asked.items() if not all(w.of_state for w in wishes)]
    notes += [
        f"{size} bytes that a jit inside init closes over are numbers in its program, on every device: {line}"
        for line, size in trace.inside.items()
    ]
    same = [o.spec.name for o in outputs if _is_same_random_everywhere(o)]
    if same:
        notes.append(f"the same random numbers on every lane (a fixed seed or key inside init): {', '.join(same)}")
    if drawn:
        notes.append(
            "init drew random numbers on the host (NumPy generator, random, os.urandom): they are the same on every "
            f"lane: {', '.join(drawn)}"
        )
    if stuck:
        notes.append(stuck_note(stuck))
    batched = [o.spec.name for o in outputs if o.spec.kind == "attribute" and o.spec.out_axis == 0]
    if batched:
        notes.append(f"attributes outside of any State that differ by lane, batched on axis 0: {', '.join(batched)}")
    if added:
        notes.append(
            "init makes modules. brainstate runs init twice, the second time with what the first has left, and keeps "
            f"the second; these are the numbers of one run. Make them in __init__: {', '.join(added)}"
        )
    return tuple(notes)


def _is_same_random_everywhere(output: Found) -> bool:
    return any(isinstance(a, Variable) and a.random and not a.by_lane for a in output.atoms)
