"""The receipt: what an initialization really did."""

from dataclasses import dataclass

from shardinit.spec.codec import STRICT, from_json, to_json


@dataclass(frozen=True, slots=True)
class StageSeconds:
    """Time of each stage."""

    discover: float
    plan: float
    compile: float
    execute: float


@dataclass(frozen=True, slots=True)
class Receipt:
    """What happened, measured.

    Attributes
    ----------
    axis_size
        Number of lanes.
    states, arrays
        How many States, and arrays in them, were made.
    programs
        Unique compiled programs that made them, the key program included.
    cached_programs
        How many of these this process had compiled before.
    discover_seconds, plan_seconds, compile_seconds, execute_seconds
        Time per stage. Compilation overlaps with execution: ``compile_seconds`` is what was waited for.
    planned_bytes, measured_bytes
        Bytes per device, as planned (the same on each) and as held, by device.
    peak_bytes
        Most bytes that each device ever held, as its backend tells; empty where it does not (CPU).
    planned_peak_bytes, constant_bytes
        The plan's peak per device, and how much arrays that init closes over came to at most.
    numerics
        ``exact`` or ``fused``.
    strategies
        Number of programs per strategy that they really ran under.
    notes
        What a user should know: values evaluated on the way, numbers that all lanes share, ...
    versions
        Of shardinit, jax, jaxlib, brainstate.
    """

    axis_size: int
    states: int
    arrays: int
    programs: int
    cached_programs: int
    discover_seconds: float
    plan_seconds: float
    compile_seconds: float
    execute_seconds: float
    planned_bytes: int
    measured_bytes: dict[str, int]
    peak_bytes: dict[str, int]
    planned_peak_bytes: int
    constant_bytes: int
    numerics: str
    strategies: dict[str, int]
    notes: tuple[str, ...]
    versions: dict[str, str]
    __pydantic_config__ = STRICT

    @property
    def seconds(self) -> float:
        """Time of all stages."""
        return self.discover_seconds + self.plan_seconds + self.compile_seconds + self.execute_seconds

    def to_json(self) -> str:
        """Serialize, with sorted keys."""
        return to_json(self)

    @classmethod
    def from_json(cls, text: str) -> "Receipt":
        """Read what ``to_json`` or ``shardinit run --json`` wrote."""
        return from_json(text, cls, within="receipt")

    def __str__(self) -> str:
        from shardinit.report.receipt import receipt_text
        from shardinit.report.terminal import for_terminal

        return for_terminal(receipt_text(self))
