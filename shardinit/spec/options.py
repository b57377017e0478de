"""What can be asked of a plan: the choices, from which the command line, JSON and checks take theirs."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from shardinit.errors import ArgumentError, ArgumentTypeError
from shardinit.wording import kind_of

# How arrays are made. The first four can be asked for; the planner decides ``local`` and ``padded`` for single pieces.
Strategy = Literal["vmap", "shard_map", "gspmd", "pmap", "local", "padded"]
AskedStrategy = Literal["auto", "vmap", "shard_map", "gspmd", "pmap"]
Numerics = Literal["exact", "fused"]
Remainder = Literal["factor", "replicate", "pad", "error"]
Rewritten = Literal["batch", "error"]

OPEN = "..."  # an array axis that a rule leaves to the planner
MOST_LANES = 2**32
SEEDS = 2**32


@dataclass(frozen=True, slots=True)
class Rule:
    """Where the states that match go.

    Attributes
    ----------
    matches
        A glob over the path or a tag; or the numbers of the states, where a filter was something else.
    text
        The rule as it was written, for reasons and errors.
    strategy
        A strategy; None leaves it open.
    axes
        A mesh axis, None (not split) or ``OPEN`` per array axis of the whole array, lanes included; None
        leaves all open.
    replicate
        Whether every device holds all of it.
    """

    matches: str | tuple[int, ...]
    text: str
    strategy: AskedStrategy | None = None
    axes: tuple[str | None, ...] | None = None
    replicate: bool = False


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What is asked of a plan; the arguments of ``shardinit.plan``, read.

    Attributes
    ----------
    axis_size
        Number of lanes.
    memory_budget
        Most bytes per device at any moment; None is no limit.
    rules
        In order: the first that matches a state counts.
    strategy
        For every batched state; ``auto`` leaves it open.
    remainder
        What to do with lanes that do not divide.
    numerics
        Whether the bits of eager brainstate are kept.
    lanes_axis
        Axis of the caller's mesh that splits the lanes; None: found by itself.
    """

    axis_size: int
    memory_budget: int | None = None
    rules: tuple[Rule, ...] = ()
    strategy: AskedStrategy = "auto"
    remainder: Remainder = "factor"
    numerics: Numerics = "exact"
    lanes_axis: str | None = None


def check_choice(name: str, value: Any, choices: Any) -> Any:
    """Refuse what is none of a ``Literal``'s choices."""
    known = get_args(choices)
    if value not in known:
        raise ArgumentError(f"{name}={value!r} is not known. Use one of {', '.join(map(repr, known))}.")
    return value


def check_axis_size(axis_size: Any) -> int:
    """Refuse anything that is not an integer of at least 1, before anything is traced or cached."""
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


def check_seed(seed: int, name: str) -> None:
    """Refuse a seed that JAX would take for another one without a word: it keeps 32 bits.

    Raises
    ------
    ArgumentError
        If the seed is negative or needs more than 32 bits; names ``name``.
    """
    if not 0 <= seed < SEEDS:
        raise ArgumentError(f"{name} {seed} is outside of 0 to {SEEDS - 1}: JAX keeps 32 bits. Use {name} 0.")
