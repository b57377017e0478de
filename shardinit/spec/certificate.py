"""A certificate: what the compiler of the target says of a plan, beside what the plan predicted."""

from dataclasses import dataclass

from shardinit.spec.codec import STRICT, from_json, to_json

# Below this, scratch of no importance decides the ratio.
WORTH_TELLING = 1 << 20

# How far above the compiler's figure a prediction of the peak may be.
MOST_ABOVE = 1.15


@dataclass(frozen=True, slots=True)
class PieceCertificate:
    """One compiled program, for one device.

    Attributes
    ----------
    state
        Name of the first state that it makes.
    count
        How many pieces it serves.
    strategy
        ``shard_map``, ``vmap``, ``gspmd``, ``padded``, ``local``, or ``keys`` for the key program.
    seconds
        Time to compile it, in a process that compiles several.
    output_bytes, temporary_bytes
        As the compiler lays them out.
    peak_bytes, predicted_peak_bytes
        Most that one run holds beside its arguments; None as a prediction for the key program.
    collectives
        Communication between devices that the compiler put in.
    error
        Why it does not compile; empty if it does.
    """

    state: str
    count: int
    strategy: str
    seconds: float = 0.0
    output_bytes: int = 0
    temporary_bytes: int = 0
    peak_bytes: int = 0
    predicted_peak_bytes: int | None = None
    collectives: tuple[str, ...] = ()
    error: str = ""
    __pydantic_config__ = STRICT

    @property
    def is_shard_local(self) -> bool:
        """Whether every device makes its part alone."""
        return not self.collectives

    @property
    def gathers(self) -> bool:
        """Whether devices collect what others have made."""
        return "all-gather" in self.collectives


@dataclass(frozen=True, slots=True)
class Moment:
    """Memory of one device at one step of the initialization, by the compiler's figures and as planned."""

    state: str
    held_bytes: int
    peak_bytes: int
    predicted_peak_bytes: int
    __pydantic_config__ = STRICT


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a compiler says of a plan.

    Attributes
    ----------
    topology
        Name of the topology, or its platform and number of devices.
    compiler
        Name and version.
    fingerprint
        Of the plan.
    axis_size
        Number of lanes.
    memory_budget
        Bytes per device; None if there was no limit.
    pieces
        Every compiled program, in the order in which they first run.
    moments
        Memory over time.
    failures
        Why it is refused; empty if it passes.
    """

    topology: str
    compiler: str
    fingerprint: str
    axis_size: int
    memory_budget: int | None
    pieces: tuple[PieceCertificate, ...]
    moments: tuple[Moment, ...]
    failures: tuple[str, ...]
    derived = ("passed", "peak_bytes", "predicted_peak_bytes", "prediction_holds")
    __pydantic_config__ = STRICT

    @property
    def passed(self) -> bool:
        """Whether everything compiles, fits, and communicates only where it may."""
        return not self.failures

    @property
    def peak_bytes(self) -> int:
        """The compiler's figure: most bytes that a device holds at any moment."""
        return max((m.peak_bytes for m in self.moments), default=0)

    @property
    def predicted_peak_bytes(self) -> int:
        """The plan's figure."""
        return max((m.predicted_peak_bytes for m in self.moments), default=0)

    @property
    def prediction_holds(self) -> bool:
        """Whether the plan's peak is not below the compiler's, and at most 15% above it."""
        return self.peak_bytes <= self.predicted_peak_bytes <= MOST_ABOVE * self.peak_bytes

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know, in sentences."""
        if self.peak_bytes < WORTH_TELLING or self.prediction_holds:
            return ()
        ratio = self.predicted_peak_bytes / self.peak_bytes
        return (
            f"the plan predicts {ratio:.2f} of the compiler's peak, outside of 1 to {MOST_ABOVE}: please report it",
        )

    def to_json(self) -> str:
        """Serialize, with sorted keys."""
        return to_json(self)

    @classmethod
    def from_json(cls, text: str) -> "Certificate":
        """Read what ``to_json`` or ``shardinit plan --certify --json`` wrote."""
        return from_json(text, cls, within="certificate")

    def __str__(self) -> str:
        from shardinit.report.certificate import certificate_text
        from shardinit.report.terminal import for_terminal

        return for_terminal(certificate_text(self))
