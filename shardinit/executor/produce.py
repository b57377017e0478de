"""Running compiled pieces: keys first, then every instance, then the checks."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from shardinit.backend.ambient import default_device
from shardinit.backend.exchange import is_shared, processes_of
from shardinit.compiler.compile import CompiledInit
from shardinit.compiler.executables import CompiledProgram
from shardinit.compiler.lanes import LaneLayout
from shardinit.compiler.piece_program import constant_shardings, literal_tables
from shardinit.compiler.programs import UniqueProgram
from shardinit.errors import PlanError
from shardinit.executor.effects import run_check, whole_here
from shardinit.executor.memory import Pacer, check_compiled
from shardinit.lane.digest import value_digest
from shardinit.lane.equations import Variable, is_key
from shardinit.lane.primitives import calls_back
from shardinit.lane.structure import Instance
from shardinit.spec.plan import InitPlan

Progress = Callable[[int, int], None]


@dataclass(slots=True)
class Made:
    """What a run made: one value per leaf (None where nothing had to be made), and the time it waited.

    ``answers`` are digests of what callbacks said that all lanes share, where processes compare them.
    """

    values: list[Any]
    compile_seconds: float
    answers: dict[str, str]


def produce(compiled: CompiledInit, keys: Sequence[jax.Array], progress: Progress | None = None) -> Made:
    """Run every program and check; touch nothing but devices: no module, no random state.

    Parameters
    ----------
    compiled
        From ``compile``.
    keys
        The current key of each random state.
    progress
        Called with the number of pieces dispatched and their total.
    """
    runner = _Runner(compiled, keys, progress)
    values = runner.run_all()
    for check, indices in compiled.checks:
        run_check(check, dict(zip(check.reads, [values[i] for i in indices], strict=True)), compiled, keys)
    jax.block_until_ready([v for v in values[: compiled.leaf_count] if v is not None])
    return Made(values[: compiled.leaf_count], runner.compile_seconds, runner.answers)


def is_tight(plan: InitPlan) -> bool:
    """Whether the plan takes most of the budget: then everything is compiled and checked before anything runs."""
    return plan.memory_budget is not None and plan.peak_bytes > plan.memory_budget // 2


class _Runner:
    """Dispatches instances and keeps what later ones need."""

    def __init__(self, compiled: CompiledInit, keys: Sequence[jax.Array], progress: Progress | None) -> None:
        self.compiled = compiled
        self.raw_keys = {
            variable: np.asarray(jax.random.key_data(key))
            for variable, key in zip(compiled.program.keys, keys, strict=True)
        }
        self.progress = progress
        self.total = sum(len(p.program.instances) for p in compiled.programs)
        self.done = 0
        self.compile_seconds = 0.0
        self.compares = compiled.mesh is not None and is_shared(processes_of(compiled.mesh.devices.flat))
        self.answers: dict[str, str] = {}
        self.values: list[Any] = [None] * (compiled.leaf_count + sum(len(indices) for _, indices in compiled.checks))
        self.handed_on: dict[Variable, Any] = {}
        self.key_tables: dict[tuple[int, LaneLayout], jax.Array] = {}
        self.constants: dict[tuple[int, Any], Any] = {}  # by the array and its sharding
        self.planned = [leaf for state in compiled.plan.states for leaf in state.leaves]
        instances = [i for p in compiled.programs for i in p.program.instances]
        self.readers: Counter[Variable] = Counter(v for i in instances for v in i.shared)
        self.shardings = {id(p.program): constant_shardings(p.program, p.layout) for p in compiled.programs}
        self.constant_readers = Counter(
            key for p in compiled.programs for i in p.program.instances for key in self.constant_keys(p.program, i)
        )

    def run_all(self) -> list[Any]:
        launchers = [_Launcher(p, self) for p in self.compiled.programs]
        plan = self.compiled.plan
        pacer = Pacer(plan)
        if is_tight(plan):
            check_compiled(self.compiled.programs, plan, self.wait_for)

        def wait() -> None:
            jax.block_until_ready([launcher.counter for launcher in launchers if launcher.counter is not None])

        for number, instance in self.compiled.sequence:
            pacer.before(instance.order, wait)
            with launchers[number].compiled.program.numbers():
                launchers[number].launch(instance)
        self.key_tables.clear()
        return self.values

    def wait_for(self, future: Any) -> Any:
        started = time.perf_counter()
        result = future.result()
        self.compile_seconds += time.perf_counter() - started
        return result

    def key_table(self, table: int, layout: LaneLayout) -> jax.Array:
        if (table, layout) not in self.key_tables:
            description = self.compiled.tables[table]
            roots = [_put(self.raw_keys[r], layout.replicated) for r in description.roots]
            steps = {name: _put(a, layout.replicated) for name, a in description.steps().items()}
            executable = self.wait_for(self.compiled.keys[table, layout])
            self.key_tables[table, layout] = executable(roots, steps)
        return self.key_tables[table, layout]

    def constant_keys(self, program: UniqueProgram, instance: Instance) -> list[tuple[int, Any]]:
        """Each array from outside that a piece takes, with its sharding."""
        return [(id(v), s) for v, s in zip(instance.constants, self.shardings[id(program)], strict=True)]

    def constant(self, value: Any, aval: Any, sharding: Any) -> Any:
        if (id(value), sharding) not in self.constants:
            host = value if isinstance(value, jax.Array) else np.asarray(value, aval.dtype)
            self.constants[id(value), sharding] = _put(host, sharding)
        return self.constants[id(value), sharding]

    def shared(self, variable: Variable, layout: LaneLayout) -> Any:
        """Give a piece a value that another handed on; what was made on one device is on all of them from then on."""
        value = _in_layout(self.handed_on[variable], variable, layout)
        if layout.mesh is not None and not variable.by_lane:
            self.handed_on[variable] = value
        return value

    def _as_planned(self, index: int, value: Any) -> Any:
        """Keep each device's part of what all of them computed whole."""
        if index >= self.compiled.leaf_count or self.compiled.mesh is None:
            return value
        wanted = NamedSharding(value.sharding.mesh, PartitionSpec(*self.planned[index].partition_spec))
        return jax.device_put(value, wanted)

    def finish(self, program: Any, instance: Any, outputs: Any) -> None:
        for (index, atom), value in zip(instance.outputs, outputs, strict=True):
            if index is not None:
                self.values[index] = self._as_planned(index, value) if program.way.rounding == "whole" else value
            elif atom in self.readers:
                self.handed_on[atom] = value
            if self.compares and index is None and program.way.strategy == "local" and not atom.by_lane:
                self.answers[f"callback {len(self.answers)} (its value)"] = value_digest(value)[:16]
        for variable in instance.shared:
            self.readers[variable] -= 1
            if not self.readers[variable]:
                del self.handed_on[variable]
        for key in self.constant_keys(program, instance):
            self.constant_readers[key] -= 1
            if not self.constant_readers[key]:
                self.constants.pop(key, None)
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total)


class _Launcher:
    """Calls one unique program, instance after instance, in the order of its tables."""

    def __init__(self, compiled: CompiledProgram, runner: _Runner) -> None:
        self.compiled = compiled
        self.runner = runner
        self.tables: tuple[Any, ...] | None = None
        self.counter: Any = None
        self.calls_back = calls_back(*compiled.program.structure.equations) != "no"

    def launch(self, instance: Any) -> None:
        program, layout, runner = self.compiled.program, self.compiled.layout, self.runner
        if self.tables is None:
            rows = np.array([i.rows for i in program.instances], np.int32).reshape(len(program.instances), -1)
            literals = {k: _put(v, layout.replicated) for k, v in literal_tables(program).items()}
            keys = {str(t): runner.key_table(t, layout) for t in sorted({t for t, _ in program.structure.keys})}
            self.counter = _put(np.int32(0), layout.replicated)
            self.tables = (keys, _put(rows, layout.replicated), literals)
            self.executable = runner.wait_for(self.compiled.executable)
            check_compiled([self.compiled], runner.compiled.plan, runner.wait_for)
        keys, rows, literals = self.tables
        constants = [
            runner.constant(value, aval, sharding)
            for value, aval, sharding in zip(
                instance.constants, program.structure.constants, runner.shardings[id(program)], strict=True
            )
        ]
        shared = [runner.shared(v, layout) for v in instance.shared]
        # The counter stays on the device: the next call needs no transfer, and no wait for this one.
        self.counter, outputs = self.executable(keys, self.counter, rows, literals, constants, shared)
        if self.calls_back:  # in the order of init; and what fails must not be waited for by other devices
            jax.block_until_ready(outputs)
        runner.finish(program, instance, outputs)


def _put(value: Any, sharding: NamedSharding | None) -> Any:
    """Put a value where a sharding wants it; without one, on the default device."""
    if sharding is not None:
        if sharding.is_fully_addressable:
            return jax.device_put(value, sharding)
        return _put_own(value, sharding)
    home = default_device()
    elsewhere = isinstance(value, jax.Array) and value.devices() != {home}
    return jax.device_put(value, home) if elsewhere else value


def _put_own(value: Any, sharding: Any) -> jax.Array:
    """Put a value on this process's devices; ``device_put`` would compare it with all others by a collective."""
    if isinstance(value, jax.Array) and is_key(value):
        raw = _put_own(jax.random.key_data(value), sharding)
        return jax.random.wrap_key_data(raw, impl=jax.random.key_impl(value))
    parts = sharding.addressable_devices_indices_map(value.shape)
    shards = [
        jax.device_put(value if sharding.is_fully_replicated else value[parts[device]], device)
        for device in sorted(parts, key=lambda d: d.id)
    ]
    return jax.make_array_from_single_device_arrays(value.shape, sharding, shards)


def _in_layout(value: Any, variable: Variable, layout: LaneLayout) -> Any:
    """Give a handed-on value to a piece whose lanes are placed differently from those of the piece that made it."""
    wanted = layout.sharding((layout.lanes_axis,) if variable.by_lane and layout.lanes_axis else ())
    if wanted is None:
        if not (value.is_fully_addressable or value.is_fully_replicated):
            raise PlanError(
                f"a callback of init takes all lanes of {variable.aval.str_short()} on one device, since several "
                "devices compute the same lane, and other processes have some of them. Use as many lanes as devices or "
                "a multiple, without rules that split single lanes, or pure_callback instead of io_callback."
            )
        return _put(whole_here(value), layout.replicated)
    if value.sharding.is_equivalent_to(wanted, value.ndim):
        return value
    if not variable.by_lane:
        return _put(whole_here(value), layout.replicated)
    kept = np.minimum(np.arange(layout.computed), value.shape[0] - 1)  # lanes that pad are copies of the last one
    lanes = value[kept] if layout.computed > value.shape[0] else value[: layout.computed]
    if lanes.is_fully_addressable and not wanted.is_fully_addressable:
        return jax.make_array_from_callback(lanes.shape, wanted, lanes.__getitem__)
    return jax.device_put(lanes, wanted)
