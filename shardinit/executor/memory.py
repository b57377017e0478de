"""Keeping to the memory budget: what the compiler says is held against the plan, and the dispatch waits."""

from collections.abc import Callable, Iterable
from typing import Any

import jax

from shardinit.compiler.executables import CompiledProgram
from shardinit.errors import MemoryBudgetError
from shardinit.planner.device_bytes import platform_family
from shardinit.planner.memory_figures import PIECE_BYTES
from shardinit.spec.plan import InitPlan, Step
from shardinit.wording import size_text


class Pacer:
    """Says before each piece whether what was dispatched must have run first, so that the budget holds.

    Pieces run side by side where a device has room: only where the temporaries of all that may still be running,
    and what they have yet to free, would not fit beside the next one, is there something to wait for.
    """

    def __init__(self, plan: InitPlan):
        self.plan = plan
        self.steps = {piece: step for step in plan.steps for piece in step.pieces}
        self.running = 0
        self.last: Step | None = None
        self.waits = 0

    def before(self, piece: int, wait: Callable[[], None]) -> None:
        """Wait if there is no room for one more piece."""
        if self.plan.memory_budget is None or piece not in self.steps:
            return
        step = self.steps[piece]
        if self.last is not None and self.last is not step:
            self.running += max(0, self.last.held + self.last.made - step.held)
        if self.running and step.held + step.made + self._needs(step) + self.running > self.plan.memory_budget:
            wait()
            self.waits += 1
            self.running = 0
        self.running += self._needs(step)
        self.last = step

    def _needs(self, step: Step) -> int:
        return step.temporaries + step.constants + PIECE_BYTES[platform_family(self.plan.topology.platform)]


def check_compiled(programs: Iterable[CompiledProgram], plan: InitPlan, wait_for: Callable[[Any], Any]) -> None:
    """Refuse programs that need more than planned, by their compiler's figures, where that breaks the budget."""
    if plan.memory_budget is None:
        return
    steps = {piece: step for step in plan.steps for piece in step.pieces}
    least = PIECE_BYTES[platform_family(plan.topology.platform)]
    for program in programs:
        found = compiled_bytes(wait_for(program.executable))
        own = [steps[i.order] for i in program.program.instances if i.order in steps]
        if not own or found is None:
            continue
        held, planned, state = max(_held_and_planned(step, least) for step in own)
        if held + found > plan.memory_budget:
            raise MemoryBudgetError(
                f"cannot make {state} within the budget: the compiler needs more for it than planned, so it "
                f"was not run. planned={size_text(planned)}, compiled={size_text(found)}, "
                f"held meanwhile={size_text(held)}, memory_budget={size_text(plan.memory_budget)} per "
                f"device. Raise memory_budget to {held + found} bytes."
            )


def _held_and_planned(step: Step, least: int) -> tuple[int, int, str]:
    """Bytes that are held beside one piece of a step, those planned for the piece, and the state it makes."""
    planned = step.made // len(step.pieces) + step.temporaries + least
    return step.peak - planned, planned, step.state


def compiled_bytes(executable: Any) -> int | None:
    """Bytes of outputs and temporaries by the compiler's figures; None where the backend tells none, as JAX says it."""
    memory = executable.memory_analysis()
    return None if memory is None else int(memory.output_size_in_bytes + memory.temp_size_in_bytes)


def untold_note(programs: Iterable[CompiledProgram], plan: InitPlan) -> tuple[str, ...]:
    """Say so where a budget is set, and there were no figures of the compiler to compare with it."""
    if plan.memory_budget is None or all(compiled_bytes(p.executable.result()) is not None for p in programs):
        return ()
    return ("the backend tells no memory of compiled programs: memory_budget was compared with the plan alone",)


def measured_peaks(mesh: Any) -> dict[str, int]:
    """Most bytes that each device of this process ever held; empty where the backend does not tell (CPU)."""
    devices = jax.local_devices() if mesh is None else mesh.local_devices
    stats = {str(device): device.memory_stats() or {} for device in devices}
    return {name: s["peak_bytes_in_use"] for name, s in stats.items() if "peak_bytes_in_use" in s}
