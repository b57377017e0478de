"""The command line: ``shardinit run``, ``plan``, ``launch``, ``top`` and ``doctor``.

The exit codes are those of ``shardinit.launch.exits``.
"""

import json
import time
from pathlib import Path
from typing import Any

import typer

from shardinit.cli import options as o
from shardinit.cli import output
from shardinit.cli.asked import Asked
from shardinit.cli.failure import fail
from shardinit.cli.processes import as_rank, doctor, find_spec, launch, supervise_rank, top
from shardinit.cli.running import initialize_states, width
from shardinit.errors import CertificateError, ShardInitError
from shardinit.launch.exits import FAILED, REFUSED, USAGE
from shardinit.launch.folder import FULL
from shardinit.launch.supervised import is_supervised

HELP = (
    "Initialize the states of a brainstate module straight into arrays distributed over many devices.\n\n"
    "Exit codes: 0 done, 2 bad usage or bad target, 3 planning or certificate refused, 4 initialization failed or "
    "output that cannot be written, 13 SIGTERM or Ctrl-C; with several processes also 10 one never came, 11 one died, "
    "12 they disagree. A retry helps after 10, 11 and 13."
)
app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback(help=HELP)
def options(version: o.Version = False) -> None:
    """Take the options that come before a command; ``--version`` has done its work by then."""


@app.command()
def run(
    target: o.Target,
    axis_size: o.AxisSize,
    devices: o.Devices = None,
    kwargs: o.Kwargs = "{}",
    seed: o.Seed = 0,
    strategy: o.Strategy = "auto",
    numerics: o.Numerics = "exact",
    remainder: o.Remainder = "factor",
    memory_budget: o.MemoryBudget = None,
    rules: o.Rules = None,
    as_json: o.AsJson = False,
    launcher: o.Launcher = None,
    coordinator: o.Coordinator = None,
    processes: o.Processes = None,
    process_id: o.ProcessId = None,
    local_devices: o.LocalDevices = "auto",
    run_folder: o.RunFolder = None,
    smi: o.Smi = False,
    log: o.Log = None,
    join_timeout: o.JoinTimeout = None,
    grace: o.Grace = 10.0,
) -> None:
    """Initialize the ensemble and say what happened: alone, or as one process of a job."""
    asked = Asked(target, axis_size, devices, None, kwargs, seed, strategy, numerics, remainder, memory_budget, rules)
    spec = find_spec(launcher, coordinator, processes, process_id, local_devices, devices)
    if spec.is_distributed and not is_supervised():
        raise typer.Exit(supervise_rank(spec, run_folder, log, join_timeout, grace, as_json))
    if as_json:
        output.only_json()
    with as_rank(spec, run_folder, log, smi) as rank:
        initialize_states(asked, rank, as_json)


@app.command()
def plan(
    target: o.OptionalTarget = None,
    axis_size: o.OptionalAxisSize = None,
    devices: o.Devices = None,
    topology: o.TopologyName = None,
    kwargs: o.Kwargs = "{}",
    strategy: o.Strategy = "auto",
    numerics: o.Numerics = "exact",
    remainder: o.Remainder = "factor",
    memory_budget: o.MemoryBudget = None,
    rules: o.Rules = None,
    as_json: o.AsJson = False,
    html: o.Html = None,
    certify: o.Certify = False,
    card: o.Card = None,
    timeout: o.Timeout = 300.0,
    diff: o.Diff = None,
) -> None:
    """Discover and plan; run nothing, make no array. Or compare two plans."""
    if diff is not None:
        if any(option is not None for option in (target, axis_size, devices, topology, html)) or certify:
            fail(USAGE, "--diff A.json B.json compares two plans that are there: it takes no TARGET or other option")
        _show_diff(*diff)
        return
    if target is None or axis_size is None:
        missing = "TARGET" if target is None else "--axis-size"
        fail(USAGE, f"{missing} is missing. Write: shardinit plan TARGET --axis-size N, or --diff A.json B.json")
    if card is not None and topology is None:
        fail(USAGE, f"--card {card} describes the GPUs of a topology. Add for example --topology gpu:2x4")
    if html == Path("-"):
        fail(USAGE, "--html - is not a file: the page is written to a file. Use for example --html plan.html")
    if topology is not None and devices is not None:
        fail(USAGE, f"--topology {topology} and --devices {devices} exclude each other: emulated devices are cpu:N")
    asked = Asked(
        target, axis_size, devices, topology, kwargs, None, strategy, numerics, remainder, memory_budget, rules, card
    )
    if as_json:
        output.only_json()
    _, planned = asked.plan()
    certificate = _certificate(planned, card, timeout) if certify else None
    if html is not None:
        from shardinit.report.page import plan_page

        _write(html, plan_page(planned, certificate, target=target, date=time.strftime("%Y-%m-%d %H:%M")))
        output.warn(f"wrote the plan's page to {html}")
    if as_json and certificate is not None:
        found = {"plan": json.loads(planned.to_json()), "certificate": json.loads(certificate.to_json())}
        output.say(json.dumps(found))
    elif as_json:
        output.say(planned.to_json())
    else:
        from shardinit.report.plan import plan_text

        print(plan_text(planned, width()))
        if certificate is not None:
            print(f"\n{certificate}")
    if certificate is not None and not certificate.passed:
        raise typer.Exit(REFUSED)


app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(launch)
app.command()(top)
app.command()(doctor)


def _certificate(planned: Any, card: Path | None, timeout: float) -> Any:
    try:
        return planned.certify(card=card, timeout=timeout)
    except (CertificateError, ValueError) as error:
        fail(FAILED if isinstance(error.__cause__, OSError) else USAGE, str(error))


def _show_diff(before: Path, after: Path) -> None:
    from shardinit.report.diff import diff_text
    from shardinit.spec.plan import InitPlan

    plans = []
    for path in (before, after):
        try:
            plans.append(InitPlan.from_json(path.read_text()))
        except (OSError, UnicodeDecodeError) as error:
            fail(USAGE, f"cannot read {path}: {error}")
        except ShardInitError as error:
            fail(USAGE, f"{path}: {error}")
    print(diff_text(*plans))


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        if path.is_file():  # the part that fitted
            path.unlink()
        code = FAILED if error.errno in FULL else USAGE
        fail(code, f"cannot write {path}: {error.strerror}. Name another file by --html FILE")
