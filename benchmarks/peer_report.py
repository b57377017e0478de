"""What the benchmark found: records, medians, targets and tables."""

import json
import re
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

MIB = 1 << 20
FILE_ONLY = {"range", "wall", "programs", "arrays", "MiB", "runs", "trouble"}


@dataclass(slots=True)
class Run:
    """One child's outcome: what it measured, or why it did not."""

    section: str
    work: str
    peer: str
    round: int
    status: str  # ok, failed, timeout, not applicable
    found: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    seconds: float = 0.0
    load_before: float = 0.0


@dataclass(slots=True)
class Report:
    """Everything that goes into the files."""

    command: str
    date: str
    rounds: int
    timeout: float
    commit: str
    versions: dict[str, str]
    machine: dict[str, str]
    environment: dict[str, dict[str, str]]
    runs: list[Run] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Target:
    """A number to reach: ``value`` is None where something it needs was not measured."""

    name: str
    value: float | None
    limit: float

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "not measured"
        return "pass" if self.value <= self.limit else "FAIL"


PLACES = {"mesh": "over 8 devices", "device": "on this machine's own devices"}


class Medians:
    """Medians over the rounds of what the children measured."""

    def __init__(self, runs: Iterable[Run]):
        self.runs = list(runs)

    def values(self, section: str, work: str, peer: str, field_name: str) -> list[float]:
        found = [r.found.get(field_name) for r in self.runs if (r.section, r.work, r.peer) == (section, work, peer)]
        return [v for v in found if v is not None]

    def __call__(self, section: str, work: str, peer: str, field_name: str) -> float | None:
        values = self.values(section, work, peer, field_name)
        return statistics.median(values) if values else None

    def ratio(self, above: tuple[str, str, str, str], below: tuple[str, str, str, str]) -> float | None:
        a, b = self(*above), self(*below)
        return None if a is None or not b else a / b

    def pairs(self, section: str) -> dict[str, list[str]]:
        """Peers by work, in the order in which they were first run."""
        found: dict[str, list[str]] = {}
        for run in self.runs:
            if run.section == section and run.peer not in found.setdefault(run.work, []):
                found[run.work].append(run.peer)
        return found

    def trouble(self, section: str, work: str, peer: str) -> str:
        """Runs that did not measure, with the last line of their error."""
        texts: dict[str, int] = {}
        for run in self.runs:
            if (run.section, run.work, run.peer) == (section, work, peer) and run.status != "ok":
                last = re.sub(r" at 0x\w+", "", (run.error.strip().splitlines() or ["no message"])[-1])
                text = last if run.status in ("timeout", "not applicable") else f"failed: {last}"
                texts[text] = texts.get(text, 0) + 1
        return "; ".join(f"{text} ({count} times)" if count > 1 else text for text, count in texts.items())


def targets(found: Medians) -> list[Target]:
    def mesh(work, peer, name):
        return ("mesh", work, peer, name)

    def cold(peer):
        return found.ratio(mesh("w1:96", "shardinit", "cold_seconds"), mesh("w1:96", peer, "cold_seconds"))

    bare, pieces = (mesh("w1:96", peer, "warm_seconds") for peer in ("bare", "bare_pieces"))
    rerun, warm = (mesh("w1:96", "shardinit", name) for name in ("rerun_seconds", "warm_seconds"))
    compile_12, compile_384 = (mesh(f"w1:{n}", "shardinit", "compile_seconds") for n in (12, 384))
    state_bytes = mesh("w1:96", "shardinit", "state_bytes")
    return [
        Target("W1 L=96, 8 devices, cold: shardinit / one_program", cold("one_program"), 1 / 15),
        Target("W1 L=96, 8 devices, cold: shardinit / nnx", cold("nnx"), 1 / 12),
        Target("W1 L=96, 8 devices, cold: shardinit / equinox", cold("equinox"), 1 / 12),
        Target("W1 L=96, 8 devices, cold: shardinit / upstream", cold("upstream"), 0.35),
        Target("W1 compile time: L=384 / L=12", found.ratio(compile_384, compile_12), 1.2),
        Target("W1 cold time per block: L=96 to 384 / L=24 to 96", _linearity(found), 1.25),
        Target(
            "W1 L=96 peak memory growth / bytes of the states",
            found.ratio(mesh("w1:96", "shardinit", "peak_bytes"), state_bytes),
            1.25,
        ),
        Target("W1 L=96 rerun / bare", found.ratio(rerun, bare), 1.2),
        Target("W1 L=96 rerun / bare_pieces (stricter)", found.ratio(rerun, pieces), 1.2),
        Target("W1 L=96 warm second call / bare", found.ratio(warm, bare), 1.6),
        Target("W1 L=96 warm second call / bare_pieces (stricter)", found.ratio(warm, pieces), 1.6),
        *_one_device_targets(found),
        *_scale_targets(found),
    ]


def _linearity(found: Medians) -> float | None:
    seconds = [found("mesh", f"w1:{layers}", "shardinit", "cold_seconds") for layers in (24, 96, 384)]
    if None in seconds:
        return None
    return ((seconds[2] - seconds[1]) / (384 - 96)) / ((seconds[1] - seconds[0]) / (96 - 24))


def _one_device_targets(found: Medians) -> list[Target]:
    return [
        Target(
            f"{work}, one device, {kind}: shardinit / brainstate",
            found.ratio(
                ("one", work, "shardinit_vmap", f"{kind}_seconds"), ("one", work, "upstream_vmap", f"{kind}_seconds")
            ),
            1.0,
        )
        for work in found.pairs("one")
        for kind in ("cold", "warm")
    ]


def _milliseconds_per_state(found: Medians, work: str) -> float | None:
    parts = [found("scale", work, "scale", name) for name in ("discover_seconds", "plan_seconds", "states")]
    return None if None in parts else 1e3 * (parts[0] + parts[1]) / parts[2]


def _scale_targets(found: Medians) -> list[Target]:
    return [
        Target(f"{work}, discovery and planning: ms per state", _milliseconds_per_state(found, work), 1.0)
        for work in found.pairs("scale")
    ]


# Tables: one list of rows each, drawn twice.


@dataclass(slots=True)
class Sheet:
    """A table: what it is called, its columns and its cells."""

    title: str
    columns: tuple[str, ...]
    rows: list[list[str]] = field(default_factory=list)
    note: str = ""


def sheets(report: Report) -> list[Sheet]:
    found = Medians(report.runs)
    made = [_targets_sheet(found)]
    made += [_peers_sheet(found, at, work, peers) for at in PLACES for work, peers in found.pairs(at).items()]
    made += [_stages_sheet(found), _one_sheet(found), _scale_sheet(found)]
    return [sheet for sheet in made if sheet.rows]


def _targets_sheet(found: Medians) -> Sheet:
    sheet = Sheet("Targets", ("target", "measured", "at most", "verdict"))
    for target in targets(found):
        sheet.rows.append([target.name, _number(target.value, 3), f"{target.limit:.3f}", target.verdict])
    return sheet


def _peers_sheet(found: Medians, section: str, work: str, peers: list[str]) -> Sheet:
    columns = ("peer", "cold s", "range", "x ours", "warm s", "rerun s", "peak MiB", "peak / states")
    columns += ("compile s", "wall", "programs", "arrays", "MiB", "runs", "trouble")
    sheet = Sheet(f"{work} {PLACES[section]}", columns)
    for peer in peers:
        get = partial(found, section, work, peer)
        ratio = found.ratio((section, work, peer, "cold_seconds"), (section, work, "shardinit", "cold_seconds"))
        peak = found.ratio((section, work, peer, "peak_bytes"), (section, work, peer, "state_bytes"))
        row = [peer, _number(get("cold_seconds")), _range(found.values(section, work, peer, "cold_seconds"))]
        row += [_number(ratio, 1), _number(get("warm_seconds")), _number(get("rerun_seconds"))]
        row += [_mebibytes(get("peak_bytes")), _number(peak), _number(get("compile_seconds"))]
        row += [_number(get("compile_wall_seconds")), _number(get("compilations"), 0), _number(get("arrays"), 0)]
        row += [_mebibytes(get("state_bytes")), str(len(found.values(section, work, peer, "state_bytes")))]
        sheet.rows.append([*row, found.trouble(section, work, peer)])
    return sheet


def _stages_sheet(found: Medians) -> Sheet:
    names = ("discover_seconds", "plan_seconds", "compile_seconds", "execute_seconds")
    sheet = Sheet(
        "Where shardinit's cold time goes (its receipt)",
        ("work", "states", "programs", *(name.replace("_seconds", " s") for name in names)),
        note="Compiling overlaps with running: its column is what was waited for.",
    )
    for work in found.pairs("mesh"):
        get = partial(found, "mesh", work, "shardinit")
        if get("receipt_states") is not None:
            counts = [_number(get(f"receipt_{name}"), 0) for name in ("states", "programs")]
            sheet.rows.append([work, *counts, *(_number(get(f"receipt_{name}"), 3) for name in names)])
    return sheet


def _one_sheet(found: Medians) -> Sheet:
    columns = ("work", "peer", "cold s", "range", "warm s", "peak MiB", "compile s", "programs", "runs", "trouble")
    sheet = Sheet("One device: vmap2_new_states", columns)
    for work, peers in found.pairs("one").items():
        for peer in peers:
            get = partial(found, "one", work, peer)
            row = [work, peer, _number(get("cold_seconds")), _range(found.values("one", work, peer, "cold_seconds"))]
            row += [_number(get("warm_seconds"), 3), _mebibytes(get("peak_bytes")), _number(get("compile_seconds"))]
            row += [_number(get("compilations"), 0), str(len(found.values("one", work, peer, "cold_seconds")))]
            sheet.rows.append([*row, found.trouble("one", work, peer)])
    return sheet


def _scale_sheet(found: Medians) -> Sheet:
    sheet = Sheet(
        "Discovery and planning alone, 64 lanes on 8 devices",
        ("work", "states", "discover s", "plan s", "ms per state", "runs", "trouble"),
    )
    for work in found.pairs("scale"):
        get = partial(found, "scale", work, "scale")
        row = [work, _number(get("states"), 0), _number(get("discover_seconds"), 3), _number(get("plan_seconds"), 4)]
        runs = str(len(found.values("scale", work, "scale", "states")))
        row += [_number(_milliseconds_per_state(found, work), 3), runs]
        sheet.rows.append([*row, found.trouble("scale", work, "scale")])
    return sheet


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _mebibytes(value: float | None) -> str:
    return "" if value is None else f"{value / MIB:.0f}"


def _range(values: list[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}" if len(values) > 1 else ""


NOTES = """\
- Each measurement is one fresh process; peers take turns, and tables show medians over the rounds.
- cold: from the first call, with packages imported, the backend started and the module built, until all
  arrays are ready. warm: a second call in that process, on a new module (or with a new key). rerun:
  `result.rerun()`, median of 5.
- peak: high-water mark of resident memory (VmHWM, reset at the start) during the cold call, above the
  resident memory before it. It includes what the compiler needs.
- x ours: cold time over that of shardinit.
- compile: JAX's own backend compile events, added up; they overlap where threads compile side by side,
  so wall is the time during which any of them ran. programs counts the events.
- bare: one compiled, sharded `jax.random.normal` of the same number of bytes, median of 5: computing alone.
  bare_pieces: the same bytes, 256 KiB per lane at a time, whose temporaries fit the caches.
- one_program, nnx and equinox draw the same shapes from the same distributions with keys of one split,
  shardinit and upstream with brainstate's chain of keys.
"""


def to_markdown(report: Report) -> str:
    lines = ["# shardinit and its peers", ""]
    lines += [f"{report.date}, {report.rounds} round(s), at most {report.timeout:.0f} s per child.", ""]
    lines += ["```", report.command, "```", ""]
    lines += ["Machine: " + ", ".join(f"{k} {v}" for k, v in report.machine.items()) + ".", ""]
    lines += ["Versions: " + ", ".join(f"{k} {v}" for k, v in report.versions.items()) + ".", ""]
    lines += [f"Commit: {report.commit}.", ""]
    for section, variables in report.environment.items():
        lines += [f"Environment, {section}: `" + " ".join(f"{k}={v}" for k, v in variables.items()) + "`.", ""]
    lines += [NOTES]
    for sheet in sheets(report):
        lines += [f"## {sheet.title}", "", *([sheet.note, ""] if sheet.note else [])]
        lines += ["| " + " | ".join(sheet.columns) + " |", "|" + " --- |" * len(sheet.columns)]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in sheet.rows]
        lines += [""]
    return "\n".join(lines)


def to_json(report: Report) -> str:
    found = [asdict(t) | {"verdict": t.verdict} for t in targets(Medians(report.runs))]
    return json.dumps(asdict(report) | {"targets": found}, indent=1, sort_keys=True)


def print_report(report: Report, console: Console) -> None:
    """The same tables for a terminal, without the columns that only the file has room for."""
    for sheet in sheets(report):
        shown = [i for i, column in enumerate(sheet.columns) if column not in FILE_ONLY]
        table = Table(title=sheet.title, title_justify="left", box=SIMPLE_HEAD)
        for i in shown:
            named = i == 0 or sheet.columns[i] == "peer"
            table.add_column(sheet.columns[i], justify="left" if named else "right", no_wrap=named)
        for row in sheet.rows:
            table.add_row(*(row[i] for i in shown))
        console.print(table)
        for row in sheet.rows:
            if sheet.columns[-1] == "trouble" and row[-1]:
                console.print(f"  {' '.join(row[: 1 + (sheet.columns[1] == 'peer')])}: {row[-1]}", soft_wrap=True)
