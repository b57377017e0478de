"""The initialization compiler: a lane program and a plan in, compiled unique programs out."""

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import Any

import jax
from jax.sharding import Mesh

from shardinit.ambient import no_ambient_mesh
from shardinit.compile.lowering import Layout, key_program, piece_program, strategy_of, table_shape
from shardinit.compile.mesh import check_mesh, make_mesh, with_auto_axes
from shardinit.compile.programs import Placement, UniqueProgram, unique_programs
from shardinit.discover.program import LaneProgram, listed
from shardinit.errors import ArgumentTypeError, PlanError
from shardinit.lane.checks import Check, find_checks
from shardinit.lane.equations import Atom, Constant, Equation, Variable, slice_of
from shardinit.lane.key_rows import KeyTable, key_tables
from shardinit.lane.pieces import cut
from shardinit.lane.primitives import accumulates
from shardinit.plan.planner import InitPlan

CACHED_EXECUTABLES = 1024

SETTINGS = ("enable_x64", "threefry_partitionable", "default_matmul_precision", "default_device", "debug_nans")

# LLVM's later passes cost the key program more than they give. It is all integers, so its bits are the same;
# not so for the others, where they decide which elements go through a vectorized logarithm.
KEY_OPTIONS_ON_CPU = {"xla_backend_optimization_level": 1}


@dataclass(frozen=True, slots=True, eq=False)
class CompiledProgram:
    """A unique program with its executable, which may still be compiling."""

    program: UniqueProgram
    layout: Layout
    strategy: str
    executable: Future


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class CompiledInit:
    """Everything that ``execute`` runs.

    Attributes
    ----------
    program, plan, mesh
        What it was compiled from.
    tables
        Key tables.
    keys
        Per key table and layout that pieces read it in: the key program.
    programs
        Unique programs, those with the largest outputs first.
    checks
        Effects to evaluate, each with the index of its predicate among the outputs.
    leaves
        Number of leaves of the program's outputs; predicates have the indices after them.
    seconds
        Time to cut, group and lower; compiling goes on in threads.
    cached
        How many of the executables were compiled before, in this process.
    notes
        What a user should know about the values, in sentences.
    """

    program: LaneProgram
    plan: InitPlan
    mesh: Mesh | None
    tables: tuple[KeyTable, ...]
    keys: dict[tuple[int, Layout], Future]
    programs: tuple[CompiledProgram, ...]
    checks: tuple[tuple[Check, int | None], ...]
    leaves: int
    seconds: float
    cached: int
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        return (
            f"CompiledInit({len(self.programs)} programs, axis_size={self.plan.axis_size}, mesh={self.plan.mesh_axes})"
        )

    def wait(self) -> "CompiledInit":
        """Wait until everything is compiled."""
        for future in (*self.keys.values(), *(p.executable for p in self.programs)):
            future.result()
        return self


def compile(program: LaneProgram, plan: InitPlan, mesh: Mesh | None = None) -> CompiledInit:
    """Compile each unique piece of a lane program once, in threads, largest first.

    Returns at once: executables are futures, so that earlier ones run while later ones compile.
    ``CompiledInit.wait`` waits for all.

    Parameters
    ----------
    program
        From ``discover``.
    plan
        From ``plan``, for the program's specs.
    mesh
        A mesh with the plan's axes; None makes it from this machine's devices.

    Raises
    ------
    PlanError
        If the mesh is not the plan's, or this machine has fewer devices.

    Examples
    --------
    >>> import brainstate, shardinit
    >>> class Neurons(brainstate.nn.Module):
    ...     def init_state(self):
    ...         self.v = brainstate.ShortTermState(brainstate.random.normal(size=(100,)))
    >>> traced = shardinit.discover(Neurons())
    >>> planned = shardinit.plan(traced, shardinit.Topology("cpu", 1), axis_size=4)
    >>> len(shardinit.compile(traced, planned).wait().programs)
    1
    """
    if not isinstance(program, LaneProgram) or not isinstance(plan, InitPlan):
        raise ArgumentTypeError(
            f"compile(program, plan) got a {type(program).__name__} and a {type(plan).__name__}. "
            "Pass what discover and plan return."
        )
    for ours, planned in zip_longest(program.specs, (s.spec for s in plan.states)):
        if ours != planned:
            raise PlanError(
                f"the plan is of another program: it has {planned} where the program has {ours}. Plan again."
            )
    started = time.perf_counter()
    if mesh is None:
        mesh = make_mesh(plan)
    else:
        check_mesh(plan, mesh)
    with no_ambient_mesh(), jax.disable_jit(False):
        return _compile(program, plan, mesh, started)


def _compile(program: LaneProgram, plan: InitPlan, mesh: Mesh | None, started: float) -> CompiledInit:
    inner = None if mesh is None else with_auto_axes(mesh)
    layout = Layout(inner, plan.lanes_axis, plan.axis_size, program.axis_name, plan.numerics == "exact")
    ends, placements = _ends(program, plan)
    if not any(p.strategy in ("shard_map", "gspmd") for p in placements.values()):
        layout = layout.unsplit()
    leaves = sum(len(o.atoms) for o in program.outputs)
    inside = slice_of(atom for _, atom in ends)
    checks: list[tuple[Check, int | None]] = []
    for check in find_checks(program.effects, inside):
        index = leaves + len(checks)
        checks.append((check, None if check.predicate is None else index))
        if check.predicate is not None:
            ends.append((index, check.predicate))
            placements[index] = _predicate_placement(check.predicate, layout)
    equations = slice_of(atom for _, atom in ends)
    tables = tuple(key_tables([r.variable for r in program.random_inputs], equations))
    pieces = _cut_by_home(ends, placements, {v for t in tables for v in t.rows})
    unique = unique_programs(
        pieces, tables, lambda index, atom: _handed_on(atom, layout) if index is None else placements[index]
    )
    compiler = _Compiler(layout, tables)
    programs = tuple(compiler.submit(u) for u in sorted(unique, key=_output_bytes, reverse=True))
    seconds = time.perf_counter() - started
    return CompiledInit(
        program,
        plan,
        mesh,
        tables,
        compiler.keys,
        programs,
        tuple(checks),
        leaves,
        seconds,
        compiler.cached,
        _numerics_notes(program, plan, equations),
    )


def _ends(program: LaneProgram, plan: InitPlan) -> tuple[list[tuple[int, Atom]], dict[int, Placement]]:
    """Index, atom and placement of every leaf that has to be made."""
    ends, placements, index = [], {}, 0
    for output, state in zip(program.outputs, plan.states, strict=True):
        for atom, leaf in zip(output.atoms, state.leaves, strict=True):
            if not _stays_as_it_is(atom, state.spec.out_axis, plan):
                axis = None if state.spec.out_axis is None else state.spec.out_axis % len(leaf.shape)
                strategy: str = "shard_map" if state.strategy == "pmap" else state.strategy
                if state.spec.kind == "attribute" and axis is None:
                    strategy = "vmap" if atom.on_axis else "local"
                placements[index] = Placement(axis, leaf.partition_spec, strategy)
                ends.append((index, atom))
            index += 1
    return ends, placements


def _stays_as_it_is(atom: Atom, out_axis: int | None, plan: InitPlan) -> bool:
    """Whether a value that all lanes share needs no program: it is on the host, or there is one device."""
    on_host = not (isinstance(atom, Constant) and isinstance(atom.value, jax.Array))
    return out_axis is None and not isinstance(atom, Variable) and (on_host or not plan.mesh_axes)


def _predicate_placement(predicate: Atom, layout: Layout) -> Placement:
    if predicate.on_axis:
        return _handed_on(predicate, layout)
    return Placement(None, (), "local")


def _handed_on(atom: Atom, layout: Layout) -> Placement:
    """Placement of a value between pieces: lanes first, split as the lanes are."""
    plain = (None,) * len(atom.aval.shape)
    strategy = "shard_map" if layout.lanes_axis else "vmap"
    if atom.by_lane:
        return Placement(0, (layout.lanes_axis, *plain), strategy)
    return Placement(None, plain, strategy)


def _cut_by_home(ends, placements, known):
    """Cut what lives on the mesh and what lives on the default device apart, so that they share no piece."""
    on_mesh = [e for e in ends if placements[e[0]].strategy != "local"]
    local = [e for e in ends if placements[e[0]].strategy == "local"]
    whole_lanes = all(p.strategy != "gspmd" for p in placements.values())
    return [*cut(on_mesh, known, sums_alone=whole_lanes), *cut(local, known)]


def _numerics_notes(program: LaneProgram, plan: InitPlan, equations: Sequence[Equation]) -> tuple[str, ...]:
    """Say where a last bit can differ from brainstate's."""
    if plan.numerics == "fused":
        return ("numerics='fused': XLA fuses over operation boundaries, so a last bit can differ from brainstate's",)
    sums: set[Variable] = set()
    for equation in equations:
        if accumulates(equation) or any(a in sums for a in equation.inputs):
            sums.update(equation.outputs)
    names = [o.spec.name for o in program.outputs if any(a in sums for a in o.atoms)]
    if not names or plan.lane_shards == 1:
        return ()
    return (f"sums whose last bit the backend itself lets depend on the number of lanes at once: {listed(names)}",)


def _output_bytes(program: UniqueProgram) -> int:
    return sum(aval.size * aval.dtype.itemsize for _, aval, _ in program.outputs)


class _Compiler:
    """Lowers in the caller's thread, where its JAX configuration holds, and compiles in others."""

    def __init__(self, layout: Layout, tables: Sequence[KeyTable]):
        self.layout = layout
        self.tables = tables
        self.keys: dict[tuple[int, Layout], Future] = {}
        self.cached = 0

    def submit(self, program: UniqueProgram) -> CompiledProgram:
        layout = self._layout_for(program)
        for table in {t for t, _ in program.keys}:
            if (table, layout) not in self.keys:
                shape = table_shape(self.tables[table], layout)
                filled = self.tables[table]
                key = ("keys", filled.kinds, len(filled.roots), len(filled.parents), shape, filled.dtype)
                self.keys[table, layout] = self._compiled(
                    (key, layout),
                    partial(key_program, self.tables[table], layout),
                    KEY_OPTIONS_ON_CPU if jax.default_backend() == "cpu" else None,
                )
        shapes = tuple((table_shape(t, layout), t.dtype) for t in self.tables)
        executable = self._compiled(
            (program.key, len(program.instances), shapes, layout), partial(piece_program, program, self.tables, layout)
        )
        return CompiledProgram(program, layout, strategy_of(program, layout), executable)

    def _layout_for(self, program: UniqueProgram) -> Layout:
        strategy = program.strategy
        if strategy == "local":
            return self.layout.on_default_device()
        return self.layout.unsplit() if strategy == "vmap" else self.layout

    def _compiled(self, key: Any, make: Callable[[], Any], options: dict[str, Any] | None = None) -> Future:
        key = (key, _configuration())
        future = _executables.get(key)
        if future is not None and not (future.done() and future.exception()):
            _executables.move_to_end(key)
            self.cached += 1
            return future
        jitted, arguments = make()
        lowered = jitted.lower(*arguments)
        future = _executables[key] = _threads.submit(lambda: lowered.compile(compiler_options=options))
        while len(_executables) > CACHED_EXECUTABLES:
            _executables.popitem(last=False)
        return future


_threads = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="shardinit-compile")
_executables: OrderedDict[Any, Future] = OrderedDict()


def _configuration() -> tuple[Any, ...]:
    """JAX settings that change what the same equations compile to."""
    return tuple(getattr(jax.config, f"jax_{name}") for name in SETTINGS)
