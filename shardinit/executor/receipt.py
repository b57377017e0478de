"""The receipt of what was produced, from figures of arrays, programs and plan."""

import functools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from shardinit.compiler.compile import CompiledInit
from shardinit.executor.memory import measured_peaks, untold_note
from shardinit.executor.produce import Made
from shardinit.lane.digest import value_digest
from shardinit.lane.equations import Variable
from shardinit.lane.program import LaneProgram
from shardinit.spec.receipt import Receipt, StageSeconds
from shardinit.versions import version_of

PACKAGES = ("shardinit", "jax", "jaxlib", "brainstate")


def receipt_of(
    compiled: CompiledInit, made: Made, seconds: StageSeconds, notes: Sequence[str], *, again: bool
) -> Receipt:
    """Say what was made, and hold it against the plan.

    Parameters
    ----------
    compiled, made
        What ran, and what came of it.
    seconds
        Time of each stage.
    notes
        What the trace has to say.
    again
        Whether everything was compiled for an earlier run.
    """
    plan, programs = compiled.plan, len(compiled.programs) + len(compiled.keys)
    outputs = [o for o in compiled.program.outputs if o.spec.kind != "attribute"]
    strategies = Counter(p.program.way.strategy for p in compiled.programs)
    return Receipt(
        axis_size=plan.axis_size,
        states=len(outputs),
        arrays=sum(len(o.atoms) for o in outputs),
        programs=programs,
        cached_programs=programs if again else compiled.cached,
        discover_seconds=seconds.discover,
        plan_seconds=seconds.plan,
        compile_seconds=seconds.compile,
        execute_seconds=seconds.execute,
        planned_bytes=plan.bytes_per_device,
        measured_bytes=measured_bytes(_state_values(compiled.program, made.values)),
        peak_bytes=measured_peaks(compiled.mesh),
        planned_peak_bytes=plan.peak_bytes,
        constant_bytes=plan.constant_bytes,
        numerics=plan.numerics,
        strategies=dict(sorted(strategies.items())),
        notes=(*notes, *compiled.notes, *untold_note(compiled.programs, plan)),
        versions=dict(_versions()),
    )


@functools.cache
def _versions() -> tuple[tuple[str, str], ...]:
    return tuple((name, version_of(name) or "not installed") for name in PACKAGES)


def _state_values(program: LaneProgram, values: Sequence[Any]) -> list[Any]:
    """Values of the leaves of states, also of those that nothing had to be made for."""
    left = iter(values)
    pairs = [(o, atom, next(left)) for o in program.outputs for atom in o.atoms]
    return [getattr(atom, "value", None) if v is None else v for o, atom, v in pairs if o.spec.kind != "attribute"]


def shared_digests(program: LaneProgram, values: Sequence[Any]) -> dict[str, str]:
    """Digest of each state that all lanes share, and so all processes; by shard, where it is split."""
    left = iter(values)
    found: dict[str, str] = {}
    for at, output in enumerate(program.outputs):
        made = [next(left) for _ in output.atoms]
        if output.spec.out_axis is None:
            for number, (atom, value) in enumerate(zip(output.atoms, made, strict=True)):
                leaf = atom.value if value is None and not isinstance(atom, Variable) else value
                name = f"{output.spec.name}{'' if output.spec.path else f' {at}'}, array {number}"
                if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
                    for shard in leaf.addressable_shards:
                        place = ", ".join(f"{s.start or 0}:{'' if s.stop is None else s.stop}" for s in shard.index)
                        found[f"{name}[{place}]"] = value_digest(shard.data)[:16]
                else:
                    found[name] = value_digest(leaf)[:16]
    return found


def measured_bytes(values: Sequence[Any]) -> dict[str, int]:
    """Bytes that each device of this process holds of these arrays."""
    held: dict[str, int] = {}
    for value in values:
        for shard in getattr(value, "addressable_shards", ()):
            name = str(shard.device)
            size = int(np.prod(shard.data.shape, dtype=np.int64)) * value.dtype.itemsize
            held[name] = held.get(name, 0) + size
    return dict(sorted(held.items()))
