"""Certifying a plan: every unique program compiled for the target, in child processes, several at once."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax import export
from jax.sharding import AbstractMesh, AxisType

from shardinit.ambient import no_ambient_mesh
from shardinit.certify.certificate import Certificate, Moment, PieceCertificate
from shardinit.certify.targets import Target, target_of
from shardinit.compile.compiler import layout_for, prepare
from shardinit.compile.lowering import key_program, piece_program, strategy_of
from shardinit.errors import ArgumentError
from shardinit.plan.init_plan import InitPlan
from shardinit.plan.memory import PIECE_BYTES

CHILD = Path(__file__).with_name("child.py")
STARTING_SECONDS = 60.0


def certify(
    plan: InitPlan,
    *,
    card: str | os.PathLike | None = None,
    timeout: float = 300.0,
    workers: int | None = None,
) -> Certificate:
    """Compile every unique program of a plan for its topology, with the real compiler, and compare.

    No device of the target is needed: TPU programs compile by the ``tpu`` extra, CUDA programs by
    ``cuda12``, CPU programs always. Each compiler runs in a child process under a timeout.

    Parameters
    ----------
    plan
        Made from a program, for a named topology or CPU devices.
    card
        File that describes another GPU than the topology's.
    timeout
        Seconds that one program may take to compile.
    workers
        Child processes at once; None takes the number of cores.

    Returns
    -------
    Certificate
        Per program: time, bytes, collectives; in all: the peak over time, pass or refuse.

    Raises
    ------
    CertificateError
        If the compiler is not installed.
    ArgumentError
        If the plan knows no program, or no device that can be compiled for.

    Examples
    --------
    >>> import brainstate, shardinit
    >>> class Neurons(brainstate.nn.Module):
    ...     def init_state(self):
    ...         self.v = brainstate.ShortTermState(brainstate.random.normal(size=(100,)))
    >>> p = shardinit.plan(shardinit.discover(Neurons()), "cpu:8", axis_size=64)
    >>> p.certify().passed
    True
    """
    if plan.program is None:
        raise ArgumentError(
            "this plan has no program to compile: it was made of specs alone, or read from JSON. "
            "Plan with what discover returns."
        )
    if timeout <= 0 or (workers is not None and workers < 1):
        raise ArgumentError(f"timeout={timeout} s and workers={workers} must be more than 0.")
    target = target_of(plan.topology, card)
    with tempfile.TemporaryDirectory(prefix="shardinit-certify-") as folder:
        programs = _export_all(plan, target, Path(folder))
        results = _compile_all(programs, plan, target, Path(folder), timeout, workers or os.cpu_count() or 1)
    return _certificate(plan, target, programs, results)


@dataclass(frozen=True, slots=True, eq=False)
class _Exported:
    """A program on its way to the compiler; ``pieces`` are the numbers of those it serves."""

    number: int
    strategy: str
    pieces: tuple[int, ...]
    outputs: int
    on_mesh: bool
    file: str
    specs: list[list[Any]]
    error: str


def _export_all(plan: InitPlan, target: Target, folder: Path) -> list[_Exported]:
    names, sizes = [n for n, _ in plan.mesh_axes], [s for _, s in plan.mesh_axes]
    mesh = AbstractMesh(tuple(sizes), tuple(names), axis_types=(AxisType.Auto,) * len(names)) if names else None
    found: list[_Exported] = []
    with no_ambient_mesh(), jax.disable_jit(False):
        work, layout, unique, _ = prepare(plan.program, plan, mesh)
        at = {id(instance): number for number, (_, instance) in enumerate(work.pieces)}
        tables: dict[Any, None] = {}
        for program in unique:
            own = layout_for(program, layout)
            tables |= dict.fromkeys((t, own) for t, _ in program.structure.keys)
        for table, own in tables:
            made = key_program(work.tables[table], own)
            found.append(_export(len(found), "keys", (), 1, own, made, target, folder))
        for program in unique:
            own = layout_for(program, layout)
            made = piece_program(program, work.tables, own)
            pieces = tuple(at[id(i)] for i in program.instances)
            strategy = strategy_of(program, own)
            found.append(_export(len(found), strategy, pieces, len(program.placements), own, made, target, folder))
    return found


def _export(number, strategy, pieces, outputs, layout, made, target: Target, folder: Path) -> _Exported:
    jitted, arguments = made
    file = folder / f"{number}.bin"
    error = ""
    try:
        file.write_bytes(export.export(jitted, platforms=[target.platform])(*arguments).serialize())
    except Exception as raised:  # lowering for the target is part of what is certified
        error = f"{type(raised).__name__}: {raised}"
    shardings = [a.sharding for a in jax.tree.leaves(arguments)]
    specs = [list(s.spec) if s is not None else [] for s in shardings]
    return _Exported(number, strategy, pieces, outputs, layout.mesh is not None, str(file), specs, error)


# ---- child processes


@dataclass(slots=True, eq=False)
class _Child:
    """A child process and what it still has to compile; ``since`` is when the current one began.

    Before it is ready, the time is that of starting Python and JAX.
    """

    process: subprocess.Popen
    waiting: list[_Exported]
    results: Path
    since: float
    log: Path
    is_ready: bool = False


def _compile_all(
    programs: Sequence[_Exported], plan: InitPlan, target: Target, folder: Path, timeout: float, workers: int
) -> dict[int, dict[str, Any]]:
    done: dict[int, dict[str, Any]] = {p.number: {"error": p.error} for p in programs if p.error}
    left = [p for p in programs if not p.error]
    children: list[_Child] = []
    try:
        for share in (left[i::workers] for i in range(workers)):
            if share:
                children.append(_start(share, plan, target, folder))
        while children:
            time.sleep(0.05)
            for child in list(children):
                _collect(child, done)
                gone = child.process.poll() is not None
                limit = timeout if child.is_ready else timeout + STARTING_SECONDS
                if not gone and (not child.waiting or time.monotonic() - child.since < limit):
                    continue
                if not gone:
                    child.process.kill()
                child.process.wait()
                _collect(child, done)
                children.remove(child)
                if child.waiting:  # the one that it was at is to blame; go on with the others
                    stuck, *rest = child.waiting
                    done[stuck.number] = {"error": _why(child, gone, timeout)}
                    if rest:
                        children.append(_start(rest, plan, target, folder))
    finally:
        for child in children:
            child.process.kill()
            child.process.wait()
    return done


def _start(share: Sequence[_Exported], plan: InitPlan, target: Target, folder: Path) -> _Child:
    with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".json", delete=False) as job:
        results = Path(job.name).with_suffix(".results")
        json.dump(
            {
                "platform": target.platform,
                "topology": target.topology,
                "mesh": plan.mesh_axes,
                "results": str(results),
                "parent": os.getpid(),
                "pieces": [{"number": p.number, "file": p.file, "specs": p.specs, "on_mesh": p.on_mesh} for p in share],
            },
            job,
        )
    log = Path(job.name).with_suffix(".log")
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(CHILD), job.name],
            env={**os.environ, **target.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    return _Child(process, list(share), results, time.monotonic(), log)


def _collect(child: _Child, done: dict[int, dict[str, Any]]) -> None:
    if not child.results.exists():
        return
    for line in child.results.read_text().splitlines():
        try:
            found = json.loads(line)
        except ValueError:  # half a line: the rest comes
            continue
        if found["number"] is None:
            child.since, child.is_ready = (child.since, True) if child.is_ready else (time.monotonic(), True)
        elif found["number"] not in done:
            done[found["number"]] = found
            child.waiting = [p for p in child.waiting if p.number != found["number"]]
            child.since = time.monotonic()


def _why(child: _Child, gone: bool, timeout: float) -> str:
    if not gone:
        return f"the compiler did not finish within timeout={timeout:g} s"
    code = child.process.returncode
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    lines = [line for line in child.log.read_text(errors="replace").splitlines() if line.strip()]
    return f"the compiler's process ended {how}: {' '.join(lines[-3:])[-600:]}"


# ---- the result


def _certificate(
    plan: InitPlan, target: Target, programs: Sequence[_Exported], results: dict[int, dict[str, Any]]
) -> Certificate:
    steps = {piece: step for step in plan.steps for piece in step.pieces}
    least = PIECE_BYTES[plan.topology.platform]
    pieces, by_piece, keys = [], {}, 0
    for program in programs:
        found = results[program.number]
        step = steps[program.pieces[0]] if program.pieces else None
        predicted = None if step is None else step.made // len(step.pieces) + step.temporaries + least
        certified = PieceCertificate(
            step.state if step else "(keys)",
            max(1, len(program.pieces)),
            program.strategy,
            found.get("seconds", 0.0),
            found.get("output_bytes", 0),
            found.get("temporary_bytes", 0),
            found.get("peak_bytes", 0),
            predicted,
            tuple(found.get("collectives", ())),
            found.get("error", ""),
        )
        pieces.append(certified)
        by_piece.update(dict.fromkeys(program.pieces, (certified, _kept(certified, program, target))))
        keys += 0 if program.pieces else certified.output_bytes
    keys_peak = sum(p.peak_bytes for p in pieces if p.strategy == "keys")
    moments = _moments(plan, by_piece, keys, keys_peak)
    failures = _failures(plan, pieces, max((m.peak_bytes for m in moments), default=0))
    topology = plan.topology.name or f"{plan.topology.platform}:{plan.topology.devices}"
    return Certificate(
        topology,
        target.compiler,
        plan.fingerprint,
        plan.axis_size,
        plan.memory_budget,
        tuple(pieces),
        tuple(moments),
        tuple(failures),
    )


def _kept(piece: PieceCertificate, program: _Exported, target: Target) -> int:
    """Bytes of the outputs without the counter and the table of pointers, which do not stay."""
    passing = 1024 if target.platform == "tpu" else 4 + 8 * (program.outputs + 1)
    return max(0, piece.output_bytes - passing)


def _moments(
    plan: InitPlan, by_piece: dict[int, tuple[PieceCertificate, int]], keys: int, keys_peak: int
) -> list[Moment]:
    """Replay the plan's steps with the compiler's figures."""
    held, moments = keys, []
    for number, step in enumerate(plan.steps):
        if not step.pieces:
            moments.append(Moment(step.state, 0, keys_peak, step.peak))
            continue
        piece, kept = by_piece[step.pieces[0]]
        before_last = held + (len(step.pieces) - 1) * kept
        moments.append(Moment(step.state, held, before_last + piece.peak_bytes, step.peak))
        held += len(step.pieces) * kept
        after = plan.steps[number + 1].held if number + 1 < len(plan.steps) else step.held + step.made
        held -= step.held + step.made - after  # what no later piece reads is freed
    return moments


def _failures(plan: InitPlan, pieces: Sequence[PieceCertificate], peak: int) -> list[str]:
    failures = [f"{p.state} does not compile: {p.error}" for p in pieces if p.error]
    failures += [
        f"{p.state} communicates ({', '.join(p.collectives)}), which strategy {p.strategy!r} must not"
        for p in pieces
        if p.collectives and p.strategy in ("shard_map", "keys", "local", "vmap")
    ]
    if plan.memory_budget is not None and peak > plan.memory_budget:
        failures.append(f"the peak of {peak} bytes per device does not fit memory_budget={plan.memory_budget}")
    return failures
