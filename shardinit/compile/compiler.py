"""The initialization compiler: a lane program and a plan in, compiled unique programs out."""

import contextlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import Any

import jax
from jax.sharding import Mesh

from shardinit.ambient import default_device, no_ambient_mesh
from shardinit.compile.fingerprint import environment_fields, program_fields
from shardinit.compile.layout import Layout
from shardinit.compile.lowering import key_program, piece_program, strategy_of, table_shape
from shardinit.compile.mesh import check_mesh, make_mesh, with_auto_axes
from shardinit.compile.notes import numerics_notes, placement_notes
from shardinit.compile.programs import Placement, UniqueProgram, unique_programs
from shardinit.discover.program import LaneProgram, listed
from shardinit.errors import ArgumentTypeError, PlanError
from shardinit.exchange import agree, is_shared, processes_of
from shardinit.lane.checks import Check
from shardinit.lane.digest import NOTHING, Content
from shardinit.lane.equations import Atom, Variable
from shardinit.lane.key_rows import KeyTable
from shardinit.lane.primitives import calls_back
from shardinit.lane.structure import Instance
from shardinit.lane.work import Work
from shardinit.plan.callbacks import runs_on_one_device
from shardinit.plan.init_plan import InitPlan, Rounding, has_whole_lanes
from shardinit.plan.layout import platform_family
from shardinit.plan.planner import check_traced_size
from shardinit.plan.rounding import taking_lanes_together
from shardinit.private_jax import configuration, entered
from shardinit.wording import counted, kind_of

CACHED_EXECUTABLES = 256  # each is up to 50 mappings of memory, of the 65,530 that Linux gives a process
CACHED_ARRAY_BYTES = 2**27  # of the arrays in them: what a jit inside init closes over

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
        Unique programs, in the order of their first piece.
    sequence
        Every piece in the order in which they run, each with the number of its program.
    checks
        Effects to run, each with the indices, among the outputs, of the values that it reads.
    leaves
        Number of leaves of the program's outputs; what effects read has the indices after them.
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
    sequence: tuple[tuple[int, Instance], ...]
    checks: tuple[tuple[Check, tuple[int, ...]], ...]
    leaves: int
    seconds: float
    cached: int
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        plan = self.plan
        return (
            f"CompiledInit({counted(len(self.programs), 'program')}, axis_size={plan.axis_size}, mesh={plan.mesh_axes})"
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
        If the mesh is not the plan's, or there are fewer devices.
    DisagreementError, JoinError
        If the mesh is that of several processes, and they would not compile the same, or one does not come.

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
            f"compile(program, plan) got {kind_of(program)} and {kind_of(plan)}. Pass what discover and plan return."
        )
    check_traced_size(program, plan.axis_size)
    for ours, planned in zip_longest(program.specs, (s.spec for s in plan.states)):
        if ours != planned:
            raise PlanError(
                f"the plan is of another program: it has {planned} where the program has {ours}. Plan again."
            )
    _check_digests(program, plan)
    started = time.perf_counter()
    if mesh is None:
        mesh = make_mesh(plan)
    else:
        check_mesh(plan, mesh)
    _check_platform(plan, mesh)
    with no_ambient_mesh(), entered(program.settings), jax.disable_jit(False):
        return _compile(program, plan, mesh, started)


def _platform(mesh: Mesh | None) -> str:
    """Platform of the mesh, or of the default device."""
    return (default_device() if mesh is None else mesh.devices.flat[0]).platform


def _check_platform(plan: InitPlan, mesh: Mesh | None) -> None:
    """Refuse devices of another kind: memory, and what rounds how, are planned for one."""
    platform = _platform(mesh)
    if platform_family(platform) != platform_family(plan.topology.platform):
        raise PlanError(
            f"the plan is for {plan.topology.platform} devices, these are {platform} devices. "
            f"Plan for {'Topology.default_device()' if mesh is None else 'Topology.from_mesh(mesh)'}."
        )


def _check_digests(program: LaneProgram, plan: InitPlan) -> None:
    """Refuse the plan of other code, also where its states look the same."""
    if not plan.digests or plan.program is program:
        return
    pairs = zip(program.specs, program.digests(), plan.digests, strict=True)
    if differing := [spec.name for spec, ours, planned in pairs if ours != planned]:
        raise PlanError(
            f"the plan is of another program: init makes {listed(differing)} in another way than when it was "
            f"planned ({len(differing)} of {len(program.specs)} states). Plan again."
        )


def _compile(program: LaneProgram, plan: InitPlan, mesh: Mesh | None, started: float) -> CompiledInit:
    work, layout, unique, sequence = prepare(program, plan, None if mesh is None else with_auto_axes(mesh))
    ranks = () if mesh is None else processes_of(mesh.devices.flat)
    if is_shared(ranks):  # programs that differ would give wrong numbers, or hang
        agree("program", environment_fields() | program_fields(program, plan, layout, unique, sequence), ranks)
    compiler = _Compiler(layout, work.tables)
    programs = tuple(compiler.submit(u) for u in unique)
    return CompiledInit(
        program,
        plan,
        mesh,
        work.tables,
        compiler.keys,
        programs,
        sequence,
        work.checks,
        sum(len(o.atoms) for o in program.outputs),
        time.perf_counter() - started,
        compiler.cached,
        (*numerics_notes(program, plan, work), *placement_notes(plan)),
    )


def prepare(
    program: LaneProgram, plan: InitPlan, mesh: Any
) -> tuple[Work, Layout, list[UniqueProgram], tuple[tuple[int, Instance], ...]]:
    """Group the pieces of a program as planned: unique programs, and the sequence in which they run.

    ``mesh`` may be abstract, or of devices that are not there.
    """
    exact, on_cpu = plan.numerics == "exact", plan.topology.platform == "cpu"
    layout = Layout(mesh, plan.lanes_axis, plan.padded_axis_size, plan.axis_size, program.axis_name, exact, on_cpu)
    whole_lanes = has_whole_lanes(plan.states, plan.lanes_axis)
    work = program.work(on_mesh=bool(plan.mesh_axes), whole_lanes=whole_lanes)
    placements = _placements(program, plan, work)
    if not any(p.strategy in ("shard_map", "gspmd") for p in placements.values()):
        layout = layout.unsplit()

    def placement(index: int | None, atom: Atom) -> Placement:
        if index is not None and index in placements:
            return placements[index]
        return Placement(None, (), "local") if index in work.local else _handed_on(atom, layout)

    order, slices, rounded = _order(plan, work)
    unique = unique_programs(work.pieces, order, slices, rounded, placement)
    number = {id(instance): n for n, u in enumerate(unique) for instance in u.instances}
    sequence = tuple((number[id(work.pieces[at][1])], work.pieces[at][1]) for at in order)
    return work, layout, unique, sequence


def _order(plan: InitPlan, work: Work) -> tuple[list[int], list[int], list[Rounding]]:
    """Order, slices and rounding of the pieces, as planned; a plan of specs alone knows no pieces."""
    order = [piece for step in plan.steps for piece in step.pieces]
    if plan.of_program:
        if sorted(order) != list(range(len(work.pieces))):
            raise PlanError(
                f"the plan's steps are not those of this program: it has {len(work.pieces)} pieces, the plan has "
                f"{len(order)}. Plan again."
            )
        step_of = {piece: step for step in plan.steps for piece in step.pieces}
        steps = [step_of[at] for at in range(len(work.pieces))]
        return order, [step.slices for step in steps], [step.rounding for step in steps]
    if plan.memory_budget is not None:
        raise PlanError(
            f"memory_budget={plan.memory_budget} cannot be kept: the plan is of specs alone. Plan with what "
            "discover returns."
        )
    if plan.mesh_devices > 1:
        whole = taking_lanes_together(work.specs)
    else:  # one device has all lanes anyhow
        whole = {at for at, spec in enumerate(work.specs) if (spec.elements or spec.never_even) and not spec.local}
    linked = [at for at, (_, instance) in enumerate(work.pieces) if instance.is_linked]
    alone = [at for at, (_, instance) in enumerate(work.pieces) if not instance.is_linked]
    rounded: list[Rounding] = [
        "whole" if at in whole else "apart" if spec.rows else "same" for at, spec in enumerate(work.specs)
    ]
    return [*linked, *alone], [1] * len(work.pieces), rounded


def _placements(program: LaneProgram, plan: InitPlan, work: Work) -> dict[int, Placement]:
    """Placement of every leaf, by its index."""
    placements, index = {}, 0
    for output, state in zip(program.outputs, plan.states, strict=True):
        for _, leaf in zip(output.atoms, state.leaves, strict=True):
            axis = None if state.spec.out_axis is None else state.spec.out_axis % len(leaf.shape)
            strategy: str = "shard_map" if state.strategy == "pmap" else state.strategy
            placements[index] = Placement(axis, leaf.partition_spec, "local" if index in work.local else strategy)
            index += 1
    return placements


def _handed_on(atom: Atom, layout: Layout) -> Placement:
    """Placement of a value between pieces: lanes first, split as the lanes are; on one device, if it must be."""
    plain = (None,) * len(atom.aval.shape)
    asked = calls_back(atom.equation) if isinstance(atom, Variable) and atom.equation is not None else "no"
    if not atom.by_lane:
        return Placement(None, plain, "local" if asked != "no" else "shard_map" if layout.lanes_axis else "vmap")
    if layout.mesh is not None and runs_on_one_device(
        asked, lanes_split=layout.shards > 1, lanes_shared=layout.shares_lanes
    ):
        return Placement(0, (None, *plain), "local")
    return Placement(0, (layout.lanes_axis, *plain), "shard_map" if layout.lanes_axis else "vmap")


def layout_for(program: UniqueProgram, layout: Layout) -> Layout:
    """Layout in which a program runs: on the mesh, with all lanes on every device, or on the default device."""
    if program.strategy == "local":
        return layout.unsplit().on_default_device()
    return layout.unsplit() if program.strategy == "vmap" else layout


class _Compiler:
    """Lowers in the caller's thread, where its JAX configuration holds, and compiles in others."""

    def __init__(self, layout: Layout, tables: Sequence[KeyTable]):
        self.layout = layout
        self.tables = tables
        self.keys: dict[tuple[int, Layout], Future] = {}
        self.cached = 0

    def submit(self, program: UniqueProgram) -> CompiledProgram:
        layout = layout_for(program, self.layout)
        for table in {t for t, _ in program.structure.keys}:
            if (table, layout) not in self.keys:
                shape = table_shape(self.tables[table], layout)
                filled = self.tables[table]
                key = ("keys", filled.kinds, len(filled.roots), len(filled.parents), shape, filled.dtype)
                self.keys[table, layout] = self._compiled(
                    (key, layout),
                    NOTHING,
                    partial(key_program, self.tables[table], layout),
                    KEY_OPTIONS_ON_CPU if _platform(layout.mesh) == "cpu" else None,
                )
        shapes = tuple((table_shape(t, layout), t.dtype) for t in self.tables)
        piece = (program.key, len(program.instances), shapes, layout)
        with program.numbers():
            executable = self._compiled(
                piece, program.structure.content, partial(piece_program, program, self.tables, layout)
            )
        return CompiledProgram(program, layout, strategy_of(program, layout), executable)

    def _compiled(
        self, key: Any, content: Content, make: Callable[[], Any], options: dict[str, Any] | None = None
    ) -> Future:
        future, is_new = _executables.get((key, configuration()), content)
        self.cached += not is_new
        if is_new:
            with _failing_with(future):
                jitted, arguments = make()
                lowered = jitted.lower(*arguments)
                _threads.submit(_compile_into, future, lowered, options)
        return future


@contextlib.contextmanager
def _failing_with(future: Future) -> Iterator[None]:
    """Tell whoever waits for it, also where it is an interrupt: who asks next tries again."""
    try:
        yield
    except BaseException as error:
        future.set_exception(error)
        raise


def _compile_into(future: Future, lowered: Any, options: dict[str, Any] | None) -> None:
    with contextlib.suppress(Exception), _failing_with(future):
        future.set_result(lowered.compile(compiler_options=options))


class _Cache:
    """The executables that were used last; what one thread is making, others wait for.

    What would keep objects of the user's alive is not kept, and of those with large arrays only few.
    """

    def __init__(self, most: int, most_bytes: int):
        self.most = most
        self.most_bytes = most_bytes
        self.lock = threading.Lock()
        self.futures: OrderedDict[Any, Future] = OrderedDict()
        self.sizes: dict[Any, int] = {}

    def get(self, key: Any, content: Content) -> tuple[Future, bool]:
        """Return the future of an executable, and whether the caller is the one to make it."""
        if not content.is_code_alone or content.array_bytes > self.most_bytes:
            return Future(), True
        with self.lock:
            future = self.futures.get(key)
            is_new = False
            if future is None or (future.done() and future.exception() is not None):
                future, is_new = Future(), True
                self.futures[key], self.sizes[key] = future, content.array_bytes
            self.futures.move_to_end(key)
            while len(self.futures) > self.most or sum(self.sizes.values()) > self.most_bytes:
                oldest, _ = self.futures.popitem(last=False)
                del self.sizes[oldest]
            return future, is_new


_threads = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="shardinit-compile")
_executables = _Cache(CACHED_EXECUTABLES, CACHED_ARRAY_BYTES)
