"""Certifying a plan: every unique program compiled for the target, and held against the plan."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shardinit.certifier.children import compile_all
from shardinit.certifier.export import ExportedProgram, export_all
from shardinit.certifier.targets import Target, need, target_of
from shardinit.errors import ArgumentError, ArgumentTypeError, CertificateError
from shardinit.planner.device_bytes import platform_family
from shardinit.planner.memory_figures import PIECE_BYTES
from shardinit.spec.certificate import Certificate, Moment, PieceCertificate
from shardinit.spec.plan import InitPlan
from shardinit.wording import kind_of


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
        If the compiler is not installed, or there is no room for temporary files.
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
    if not isinstance(plan, InitPlan):
        raise ArgumentTypeError(f"certify got {kind_of(plan)}. Pass what plan(program, topology, ...) returns.")
    if plan.program is None:
        raise ArgumentError(
            "this plan has no program to compile: it was made of specs alone, or read from JSON. "
            "Plan with what discover returns."
        )
    if not isinstance(timeout, (int, float)) or not isinstance(workers, (int, type(None))):
        raise ArgumentTypeError(f"timeout={timeout!r} is to be seconds, and workers={workers!r} an int or None.")
    if timeout <= 0 or (workers is not None and workers < 1):
        raise ArgumentError(f"timeout={timeout} s and workers={workers} must be more than 0.")
    target = target_of(plan.topology, card)
    need("flatbuffers", "cli", "what hands programs to compilers")
    try:
        with tempfile.TemporaryDirectory(prefix="shardinit-certify-", ignore_cleanup_errors=True) as folder:
            programs = export_all(plan, target, Path(folder))
            results = compile_all(programs, plan, target, Path(folder), timeout, workers or os.cpu_count() or 1)
    except OSError as error:
        raise CertificateError(
            f"cannot hand programs to the compiler in a temporary folder: {error.strerror or error}. "
            "Make room, or set TMPDIR to a folder that can be written."
        ) from error
    return _certificate(plan, target, programs, results)


def _certificate(
    plan: InitPlan, target: Target, programs: Sequence[ExportedProgram], results: dict[int, dict[str, Any]]
) -> Certificate:
    steps = {piece: step for step in plan.steps for piece in step.pieces}
    least = PIECE_BYTES[platform_family(plan.topology.platform)]
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
    tables = sum(p.table_bytes for p in programs)
    moments = _moments(plan, by_piece, keys + tables, keys_peak)
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


def _kept(piece: PieceCertificate, program: ExportedProgram, target: Target) -> int:
    """Bytes of the outputs without the counter and the table of pointers, which do not stay."""
    passing = 1024 if target.platform == "tpu" else 4 + 8 * (program.outputs + 1)
    return max(0, piece.output_bytes - passing)


def _moments(
    plan: InitPlan, by_piece: dict[int, tuple[PieceCertificate, int]], keys: int, keys_peak: int
) -> list[Moment]:
    """Replay the plan's steps with the compiler's figures; arrays from outside are the plan's."""
    held, moments = keys, []
    for number, step in enumerate(plan.steps):
        if not step.pieces:
            moments.append(Moment(step.state, 0, keys_peak, step.peak))
            continue
        piece, kept = by_piece[step.pieces[0]]
        before_last = held + step.constants + (len(step.pieces) - 1) * kept
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
