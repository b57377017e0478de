"""Compare shardinit with its peers: the same arrays, one fresh process per measurement.

    python benchmarks/peers.py --rounds 3 --output benchmarks/results/peers

Every child gets the same environment (8 emulated CPU devices; 1 in the section ``one``; the machine's own
in ``device``). Peers take turns within a round, in another order in every round. A child that fails or runs
too long stays in the results with its error. Results are written after every child: ``OUTPUT.json`` and
``OUTPUT.md``.
"""

import json
import os
import platform
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer
from peer_report import Report, Run, print_report, to_json, to_markdown
from rich.console import Console

HERE = Path(__file__).resolve().parent
DEVICES = 8
WORKS = "w1:12,w1:24,w1:96,w1:384,rnn,ei"
PEERS = "shardinit,upstream,upstream_pmap,one_program,one_program_brainstate,nnx,equinox,bare,bare_pieces"
ONE_DEVICE_PEERS = ("shardinit_vmap", "upstream_vmap")
SCALE = "240,1200,4000"
PACKAGES = ("shardinit", "jax", "jaxlib", "brainstate", "brainpy", "flax", "equinox", "numpy")

console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


@dataclass(frozen=True, slots=True)
class Job:
    """What one child measures, and in which section of the report it belongs (mesh, device, one, scale)."""

    section: str
    work: str
    peer: str

    @property
    def not_applicable(self) -> str | None:
        if self.work == "ei" and self.peer in ("one_program", "nnx", "equinox"):
            return "not applicable: brainpy's neurons are not written by hand (see one_program_brainstate)"
        if self.work.startswith("w1") and self.peer == "one_program_brainstate":
            return "not applicable: written by hand instead (see one_program)"
        return None


def jobs_of(sections: list[str], works: list[str], peers: list[str], scale: list[str]) -> list[list[Job]]:
    """Groups of jobs that take turns."""
    groups = []
    split = [(name, chosen.split("+") if chosen else peers) for name, _, chosen in (w.partition("=") for w in works)]
    if "mesh" in sections:
        groups += [[Job("mesh", name, peer) for peer in chosen] for name, chosen in split]
    if "device" in sections:
        groups += [[Job("device", name, peer) for peer in chosen] for name, chosen in split]
    if "one" in sections:
        groups += [[Job("one", name, peer) for peer in ONE_DEVICE_PEERS] for name, _ in split]
    if "scale" in sections:
        groups.append([Job("scale", f"w1:{layers}", "scale") for layers in scale])
    return groups


def environment(section: str) -> dict[str, str]:
    """The settings of a child, the same for every peer of a section."""
    if section == "device":
        return {}
    if section == "one":
        return {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    return {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(DEVICES), "PJRT_NPROC": str(DEVICES + 1)}


def run_child(job: Job, number: int, timeout: float) -> Run:
    run = Run(job.section, job.work, job.peer, number, "ok", load_before=round(os.getloadavg()[0], 2))
    if job.not_applicable:
        run.status, run.error = "not applicable", job.not_applicable
        return run
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_", "PJRT_"))}
    started = time.perf_counter()
    try:
        child = subprocess.run(
            [sys.executable, str(HERE / "peer_child.py"), job.work, job.peer],
            env=inherited | environment(job.section),
            capture_output=True,
            text=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        run.status, run.error = "timeout", f"timed out after {timeout:.0f} s"
    else:
        _read_outcome(run, child)
    run.seconds = round(time.perf_counter() - started, 2)
    return run


def _read_outcome(run: Run, child: subprocess.CompletedProcess) -> None:
    printed = [line for line in child.stdout.splitlines() if line.startswith("{")]
    found = json.loads(printed[-1]) if printed else {}
    if child.returncode == 0 and found:
        run.found = found
        return
    last = [line for line in child.stderr.splitlines() if line.strip()][-1:]
    run.status = "failed"
    run.error = found.get("error") or f"exit {child.returncode}: {''.join(last) or 'no message'}"


def measure(report: Report, groups: list[list[Job]], save) -> None:
    """Run all rounds. What timed out is not tried again: it would cost the same time."""
    timed_out: set[Job] = set()
    for number in range(report.rounds):
        for group in groups:
            turn = number % len(group)
            for job in group[turn:] + group[:turn]:
                if job in timed_out or (number and job.not_applicable):
                    continue
                run = run_child(job, number, report.timeout)
                if run.status == "timeout":
                    timed_out.add(job)
                report.runs.append(run)
                console.print(_line(run), soft_wrap=True)
                save()


def _line(run: Run) -> str:
    found = {k: f"{v:.3f}" for k, v in run.found.items() if k in ("cold_seconds", "warm_seconds", "discover_seconds")}
    what = " ".join(f"{k}={v}" for k, v in found.items()) or (run.error.strip().splitlines() or [""])[-1]
    outcome = f"failed: {what}" if run.status == "failed" else what
    return f"round {run.round} {run.section:5} {run.work:8} {run.peer:22} {outcome}"


def describe_machine() -> dict[str, str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    kilobytes = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "cpu": cpu[0] if cpu else platform.processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{kilobytes / 2**20:.1f} GiB",
        "system": platform.platform(),
        "load at the start": f"{os.getloadavg()[0]:.2f}",
    }


def describe_versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def describe_commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(HERE.parent), *arguments], capture_output=True, text=True
        ).stdout.strip()

    changed = " with uncommitted changes" if git("status", "--porcelain", "shardinit") else ""
    return (git("rev-parse", "--short", "HEAD") or "unknown") + changed


def main(
    works: Annotated[
        str,
        typer.Option(help="Works, separated by commas: w1:L, rnn, ei; w1:384=shardinit+upstream for these peers only."),
    ] = WORKS,
    peers: Annotated[str, typer.Option(help="Peers of the section `mesh`.")] = PEERS,
    sections: Annotated[str, typer.Option(help="Sections: mesh, one, scale.")] = "mesh,one,scale",
    scale: Annotated[str, typer.Option(help="Numbers of blocks for the section `scale`.")] = SCALE,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the tables show medians over them.")] = 3,
    timeout: Annotated[float, typer.Option(help="Seconds that one child may take.")] = 900.0,
    output: Annotated[Path, typer.Option(help="Stem of the files to write.")] = HERE / "results" / "peers",
) -> None:
    """Compare shardinit with its peers, one process per measurement."""
    report = Report(
        command=shlex.join(["python", *sys.argv]),
        date=time.strftime("%Y-%m-%d %H:%M %Z"),
        rounds=rounds,
        timeout=timeout,
        commit=describe_commit(),
        versions=describe_versions(),
        machine=describe_machine(),
        environment={"8 devices": environment("mesh"), "one device": environment("one")},
    )
    output.parent.mkdir(parents=True, exist_ok=True)

    def save():
        Path(f"{output}.json").write_text(to_json(report))
        Path(f"{output}.md").write_text(to_markdown(report))

    names = [text.split(",") if text else [] for text in (sections, works, peers, scale)]
    measure(report, jobs_of(*names), save)
    print_report(report, console)
    console.print(f"written: {output}.md, {output}.json", soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
