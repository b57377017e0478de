"""The command line: ``shardinit run`` and ``shardinit plan``.

Exit codes: 0 done; 2 bad usage or bad target; 3 planning refused; 4 initialization failed.
"""

import enum
import json
import shutil
import sys
import traceback
from typing import Annotated, Any, NoReturn

import typer

from shardinit.errors import ShardInitError

USAGE, REFUSED, FAILED = 2, 3, 4

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Initialize the states of a brainstate module straight into arrays distributed over many devices.\n\n"
    "Exit codes: 0 done, 2 bad usage or bad target, 3 planning refused, 4 initialization failed.",
)


class StrategyName(enum.StrEnum):
    """Strategies of the command line."""

    auto = "auto"
    vmap = "vmap"
    shard_map = "shard_map"
    gspmd = "gspmd"
    pmap = "pmap"


class NumericsName(enum.StrEnum):
    """Numerics of the command line."""

    exact = "exact"
    fused = "fused"


Target = Annotated[
    str, typer.Argument(help="path/file.py:factory or package.module:factory; the factory returns a module.")
]
AxisSize = Annotated[int, typer.Option(help="Number of lanes of the ensemble.", min=1)]
Devices = Annotated[
    int | None, typer.Option(help="Emulate that many CPU devices. Default: the devices of this machine.", min=1)
]
Kwargs = Annotated[str, typer.Option(help="Keyword arguments of init_all_states, as a JSON object.")]
Seed = Annotated[int, typer.Option(help="Seed of brainstate's random state.")]
Strategy = Annotated[StrategyName, typer.Option(help="How the lanes are spread.")]
Numerics = Annotated[NumericsName, typer.Option(help="exact: brainstate's bits; fused: XLA may fuse.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]


@app.command()
def run(
    target: Target,
    axis_size: AxisSize,
    devices: Devices = None,
    kwargs: Kwargs = "{}",
    seed: Seed = 0,
    strategy: Strategy = StrategyName.auto,
    numerics: Numerics = NumericsName.exact,
    as_json: AsJson = False,
) -> None:
    """Initialize the ensemble and say what happened."""
    program, planned = _plan(target, axis_size, devices, kwargs, seed, strategy, numerics)
    if not as_json:
        _show_plan(planned)
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
    target: Target,
    axis_size: AxisSize,
    devices: Devices = None,
    kwargs: Kwargs = "{}",
    strategy: Strategy = StrategyName.auto,
    numerics: Numerics = NumericsName.exact,
    as_json: AsJson = False,
) -> None:
    """Discover and plan; run nothing, make no array."""
    _, planned = _plan(target, axis_size, devices, kwargs, None, strategy, numerics)
    if as_json:
        print(planned.to_json())
        return
    from shardinit.plan.text import mesh_picture

    _show_plan(planned)
    print(f"\n{mesh_picture(planned)}")


def main() -> None:
    """Entry point of the ``shardinit`` command."""
    app()


def _plan(target, axis_size, devices, kwargs, seed, strategy, numerics):
    """From the command line to a traced program and its plan, or out with the right exit code."""
    try:
        init_kwargs = json.loads(kwargs)
    except json.JSONDecodeError as error:
        _fail(USAGE, f"--kwargs is no JSON ({error}). Write for example --kwargs '{{\"size\": 10}}'")
    if not isinstance(init_kwargs, dict):
        _fail(USAGE, f"--kwargs is a JSON {type(init_kwargs).__name__}. Write an object, such as '{{\"size\": 10}}'")

    from shardinit import Topology, discover, emulate_cpu
    from shardinit import plan as make_plan
    from shardinit.cli.target import TargetFailedError, build_module

    try:
        if devices is not None:
            emulate_cpu(devices)
        if seed is not None:
            import brainstate

            brainstate.random.seed(seed)
        module = build_module(target)
    except TargetFailedError as error:
        _fail(USAGE, str(error), error.__cause__)
    except ShardInitError as error:
        _fail(USAGE, str(error))
    try:
        program = discover(module, init_kwargs)
    except Exception as error:
        _fail(FAILED, "init_all_states failed", error)
    topology = Topology.local() if devices is None else Topology("cpu", devices)
    try:
        return program, make_plan(
            program, topology, axis_size=axis_size, strategy=strategy.value, numerics=numerics.value
        )
    except ShardInitError as error:
        _fail(REFUSED, str(error))


def _show_plan(planned: Any) -> None:
    from shardinit.plan.text import plan_table, rendered, size_text

    width = max(shutil.get_terminal_size().columns, 104) if sys.stdout.isatty() else 120
    print(f"{len(planned.states)} states, axis_size={planned.axis_size}; {planned.reason}\n")
    print(rendered(plan_table(planned), width))
    print(f"\n{size_text(planned.bytes_per_device)} per device ({planned.bytes_per_device} bytes)")


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
