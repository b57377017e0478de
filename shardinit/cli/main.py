"""The command line: ``shardinit run`` and ``shardinit plan``.

Exit codes: 0 done; 2 bad usage or bad target; 3 planning or certificate refused; 4 initialization failed.
"""

import json
import shutil
import signal
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import typer

from shardinit.cli import options as o
from shardinit.errors import ArgumentError, ArgumentTypeError, CertificateError, ShardInitError

USAGE, REFUSED, FAILED = 2, 3, 4

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Initialize the states of a brainstate module straight into arrays distributed over many devices.\n\n"
    "Exit codes: 0 done, 2 bad usage or bad target, 3 planning or certificate refused, 4 initialization failed.",
)


@app.command()
def run(
    target: o.Target,
    axis_size: o.AxisSize,
    devices: o.Devices = None,
    kwargs: o.Kwargs = "{}",
    seed: o.Seed = 0,
    strategy: o.Strategy = o.StrategyName.auto,
    numerics: o.Numerics = o.NumericsName.exact,
    remainder: o.Remainder = o.RemainderName.factor,
    memory_budget: o.MemoryBudget = None,
    rules: o.Rules = None,
    as_json: o.AsJson = False,
) -> None:
    """Initialize the ensemble and say what happened."""
    asked = _Asked(target, axis_size, devices, None, kwargs, seed, strategy, numerics, remainder, memory_budget, rules)
    program, planned = asked.plan()
    if not as_json:
        _show_table(planned)
    from shardinit.compile.compiler import compile
    from shardinit.execute.executor import execute
    from shardinit.report.progress import progress_bar

    try:
        with progress_bar() as update:
            result = execute(compile(program, planned), progress=update)
    except Exception as error:
        _fail(FAILED, "initialization failed", error)
    if as_json:
        print(json.dumps({"plan": json.loads(planned.to_json()), "receipt": json.loads(result.receipt.to_json())}))
    else:
        from shardinit.plan.text import mesh_picture

        print(f"\n{result.receipt}\n")
        print(mesh_picture(planned, [str(d) for d in result.mesh.devices.flat] if result.mesh else None))


@app.command()
def plan(
    target: o.OptionalTarget = None,
    axis_size: o.OptionalAxisSize = None,
    devices: o.Devices = None,
    topology: o.TopologyName = None,
    kwargs: o.Kwargs = "{}",
    strategy: o.Strategy = o.StrategyName.auto,
    numerics: o.Numerics = o.NumericsName.exact,
    remainder: o.Remainder = o.RemainderName.factor,
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
            _fail(USAGE, "--diff A.json B.json compares two plans that are there: it takes no TARGET or other option")
        _show_diff(*diff)
        return
    if target is None or axis_size is None:
        missing = "TARGET" if target is None else "--axis-size"
        _fail(USAGE, f"{missing} is missing. Write: shardinit plan TARGET --axis-size N, or --diff A.json B.json")
    if card is not None and not certify:
        _fail(USAGE, f"--card {card} is for --certify. Add --certify, or leave it out")
    if topology is not None and devices is not None:
        _fail(USAGE, f"--topology {topology} and --devices {devices} exclude each other: emulated devices are cpu:N")
    asked = _Asked(
        target, axis_size, devices, topology, kwargs, None, strategy, numerics, remainder, memory_budget, rules
    )
    _, planned = asked.plan()
    certificate = _certificate(planned, card, timeout) if certify else None
    if html is not None:
        from shardinit.report.html import plan_page

        _write(html, plan_page(planned, certificate))
    if as_json and certificate is not None:
        print(json.dumps({"plan": json.loads(planned.to_json()), "certificate": json.loads(certificate.to_json())}))
    elif as_json:
        print(planned.to_json())
    else:
        from shardinit.plan.text import plan_text

        print(plan_text(planned, _width()))
        if certificate is not None:
            print(f"\n{certificate}")
    if certificate is not None and not certificate.passed:
        raise typer.Exit(REFUSED)


def main() -> None:
    """Entry point of the ``shardinit`` command."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that child processes are ended
    app()


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the command line asks for."""

    target: str
    axis_size: int
    devices: int | None
    topology: str | None
    kwargs: str
    seed: int | None
    strategy: o.StrategyName
    numerics: o.NumericsName
    remainder: o.RemainderName
    memory_budget: str | None
    rules: list[str] | None

    def plan(self) -> tuple[Any, Any]:
        """Trace the program and plan it, or leave with the right exit code."""
        try:
            init_kwargs = json.loads(self.kwargs)
        except json.JSONDecodeError as error:
            _fail(USAGE, f"--kwargs is no JSON ({error}). Write for example --kwargs '{{\"size\": 10}}'")
        if not isinstance(init_kwargs, dict):
            _fail(
                USAGE, f"--kwargs is a JSON {type(init_kwargs).__name__}. Write an object, such as '{{\"size\": 10}}'"
            )

        from shardinit import Topology, discover
        from shardinit import plan as make_plan
        from shardinit.cli.target import TargetFailedError, build_module

        try:
            rules = o.read_rules(self.rules)
            topology = self._topology_before_jax()
            module = build_module(self.target)
        except TargetFailedError as error:
            _fail(USAGE, str(error), error.__cause__)
        except ShardInitError as error:
            _fail(USAGE, str(error))
        try:
            program = discover(module, init_kwargs)
        except Exception as error:
            _fail(FAILED, "init_all_states failed", error)
        try:
            return program, make_plan(
                program,
                topology or Topology.local(),
                axis_size=self.axis_size,
                memory_budget=self.memory_budget,
                rules=rules,
                strategy=self.strategy.value,
                remainder=self.remainder.value,
                numerics=self.numerics.value,
            )
        except (ArgumentError, ArgumentTypeError) as error:
            _fail(USAGE, str(error))
        except ShardInitError as error:
            _fail(REFUSED, str(error))

    def _topology_before_jax(self) -> Any:
        """Set up what must come before the user's module: emulated devices, the seed."""
        from shardinit import Topology, emulate_cpu

        topology = None
        if self.topology is not None:
            import jax

            topology = Topology.named(self.topology)
            jax.config.update("jax_platforms", "cpu")  # planning needs none of the machine's accelerators
        elif self.devices is not None:
            emulate_cpu(self.devices)
            topology = Topology("cpu", self.devices)
        if self.seed is not None:
            import brainstate

            brainstate.random.seed(self.seed)
        return topology


def _certificate(planned: Any, card: Path | None, timeout: float) -> Any:
    try:
        return planned.certify(card=card, timeout=timeout)
    except (CertificateError, ValueError) as error:
        _fail(USAGE, str(error))


def _show_diff(before: Path, after: Path) -> None:
    from shardinit.plan.diff import diff_text
    from shardinit.plan.init_plan import InitPlan

    plans = []
    for path in (before, after):
        try:
            plans.append(InitPlan.from_json(path.read_text()))
        except (OSError, UnicodeDecodeError) as error:
            _fail(USAGE, f"cannot read {path}: {error}")
        except ShardInitError as error:
            _fail(USAGE, f"{path}: {error}")
    print(diff_text(*plans))


def _show_table(planned: Any) -> None:
    from shardinit.plan.text import plan_table, rendered, size_text

    print(f"{len(planned.states)} states, axis_size={planned.axis_size}; {planned.reason}\n")
    print(rendered(plan_table(planned), _width()))
    print(f"\n{size_text(planned.bytes_per_device)} per device ({planned.bytes_per_device} bytes)")


def _width() -> int:
    return max(shutil.get_terminal_size().columns, 114) if sys.stdout.isatty() else 120


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        _fail(USAGE, f"cannot write {path}: {error}")


def _fail(code: int, message: str, error: BaseException | None = None) -> NoReturn:
    """Print one message, and the user's part of a traceback, and leave."""
    if error is not None and not isinstance(error, ShardInitError):
        for line in _user_traceback(error):
            print(line, end="", file=sys.stderr)
    elif error is not None:
        message = f"{message}: {error}"
    print(f"shardinit: {message}", file=sys.stderr)
    raise typer.Exit(code)


def _user_traceback(error: BaseException) -> list[str]:
    """Frames of the user's code, without those of shardinit, brainstate and JAX."""
    from shardinit.discover.trace import is_library

    frames = [f for f in traceback.extract_tb(error.__traceback__) if not is_library(f.filename)]
    lines = ["Traceback (most recent call last):\n", *traceback.format_list(frames)] if frames else []
    return lines + traceback.format_exception_only(error)


if __name__ == "__main__":
    main()
