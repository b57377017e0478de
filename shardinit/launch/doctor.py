"""``shardinit doctor``: what is wrong with this machine and its settings, and how to fix it. Never imports JAX."""

import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from shardinit.launch import doctor_jax, doctor_machine
from shardinit.launch.doctor_probe import BACKEND_SECONDS, Finding, Surroundings, ask_backend
from shardinit.spec.codec import VERSION
from shardinit.wording import counted

PROBLEMS = 1
WIDTH = 120
COLORS = {"ok": "green", "warning": "yellow", "problem": "red"}
CHECKS: tuple[Callable[[Surroundings], Finding], ...] = (
    doctor_jax.python,
    doctor_jax.packages,
    doctor_jax.backend,
    doctor_jax.xla_flags,
    doctor_jax.threads,
    doctor_machine.launcher,
    doctor_machine.ports,
    doctor_machine.loopback,
    doctor_machine.proxy,
    doctor_machine.host_name,
    doctor_machine.shared_memory,
    doctor_machine.memory,
    doctor_machine.open_files,
    doctor_machine.run_folder,
    doctor_machine.home_cache,
    doctor_machine.temporary_folder,
    doctor_machine.compilation_cache,
)


def run_checks(
    env: Mapping[str, str], *, folder: Path | None = None, backend_seconds: float = BACKEND_SECONDS
) -> list[Finding]:
    """Look at everything that keeps a job from running.

    JAX's backend is started in a child process, which is ended if it hangs.

    Parameters
    ----------
    env
        Variables, such as ``os.environ``.
    folder
        Where runs are to be written. Default: the working folder.
    backend_seconds
        How long the backend may take to start.

    Examples
    --------
    >>> import os
    >>> from shardinit.launch.doctor import run_checks
    >>> [finding.name for finding in run_checks(os.environ) if finding.status == "problem"]  # doctest: +SKIP
    ['ports', 'cache folder']
    """
    here = Surroundings(env, folder or Path.cwd(), backend=ask_backend(env, backend_seconds))
    return [_checked(check, here) for check in CHECKS]


def show(findings: Sequence[Finding], as_json: bool = False) -> int:
    """Print what was found, and return the exit status: 0, or 1 if there is a problem.

    Parameters
    ----------
    findings
        What ``run_checks`` found.
    as_json
        Print one JSON object.
    """
    problems = sum(finding.status == "problem" for finding in findings)
    warnings = sum(finding.status == "warning" for finding in findings)
    if as_json:
        counts = {"version": VERSION, "problems": problems, "warnings": warnings}
        print(json.dumps({**counts, "findings": [asdict(finding) for finding in findings]}))
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH
        console = Console(width=width)
        console.print(table(findings))
        console.print(f"\n{counted(problems, 'problem')}, {counted(warnings, 'warning')}")
    return PROBLEMS if problems else 0


def table(findings: Sequence[Finding]) -> Table:
    """Draw one row per check, with what to do under what is wrong."""
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    drawn.add_column("check", no_wrap=True)
    drawn.add_column("", no_wrap=True)
    drawn.add_column("what is so, and what to do", overflow="fold")
    for finding in findings:
        what = Text(finding.what)
        if finding.fix:
            what.append(f"\n{finding.fix}", "bold")
        drawn.add_row(finding.name, Text(finding.status, COLORS[finding.status]), what)
    return drawn


def _checked(check: Callable[[Surroundings], Finding], here: Surroundings) -> Finding:
    """Let one check that fails itself not hide the others."""
    name = check.__name__.replace("_", " ")
    try:
        return check(here)
    except Exception as error:
        return Finding(
            name, "warning", f"the check itself failed: {type(error).__name__}: {error}", "Check it by hand."
        )
