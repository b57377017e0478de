"""Options that the commands share, and how their texts are read."""

import enum
import platform
from pathlib import Path
from typing import Annotated, get_args

import typer

from shardinit.cli.failure import fail
from shardinit.errors import ArgumentError
from shardinit.launch.exits import USAGE
from shardinit.spec import options
from shardinit.spec.options import AskedStrategy, check_seed
from shardinit.versions import version_of


def show_version(asked: bool) -> None:
    """Print the versions of what matters, and leave."""
    if asked:
        found = ", ".join(
            f"{name} {version_of(name) or 'not installed'}" for name in ("shardinit", "jax", "jaxlib", "brainstate")
        )
        print(f"{found}, Python {platform.python_version()}")
        raise typer.Exit


def checked_seed(seed: int) -> int:
    """Refuse a seed that JAX would not keep."""
    try:
        check_seed(seed, "--seed")
    except ArgumentError as error:
        fail(USAGE, str(error))
    return seed


TARGET_HELP = "path/file.py:factory or package.module:factory; the factory returns a module."

Version = Annotated[
    bool,
    typer.Option(
        "--version", callback=show_version, is_eager=True, help="Print the versions of shardinit, jax, Python and more."
    ),
]
Target = Annotated[str, typer.Argument(metavar="TARGET", help=TARGET_HELP)]
OptionalTarget = Annotated[str | None, typer.Argument(metavar="TARGET", help=TARGET_HELP)]
AxisSize = Annotated[int, typer.Option(help="Number of lanes of the ensemble.", min=1)]
OptionalAxisSize = Annotated[int | None, typer.Option(help="Number of lanes of the ensemble.", min=1)]
Devices = Annotated[
    int | None, typer.Option(help="Emulate that many CPU devices. Default: the devices of this machine.", min=1)
]
TopologyName = Annotated[
    str | None,
    typer.Option(help="Plan for devices that need not be here: cpu:8, h100:4x8, v5e:4x8, 2xv5e:16x16, gpu:2x4@48GiB."),
]
Kwargs = Annotated[str, typer.Option(help="Keyword arguments of init_all_states, as a JSON object.")]
Seed = Annotated[int, typer.Option(callback=checked_seed, help="Seed of brainstate's random state, 0 to 2**32 - 1.")]
Strategy = Annotated[AskedStrategy, typer.Option(help="How the lanes are spread.")]
Numerics = Annotated[options.Numerics, typer.Option(help="exact: brainstate's bits; fused: XLA may fuse.")]
Remainder = Annotated[options.Remainder, typer.Option(help="What to do with lanes that do not divide the devices.")]
MemoryBudget = Annotated[
    str | None, typer.Option(help="Most bytes per device at any moment, such as 12GiB, or 'unlimited'.")
]
Rules = Annotated[
    list[str] | None,
    typer.Option(
        "--rule",
        help="GLOB=PLACEMENT over paths such as layers/*/weight; the placement is replicate, a strategy, or mesh axes "
        "per array axis, lanes included: lanes,None,model. Several are tried in order.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
Html = Annotated[Path | None, typer.Option("--html", help="Write the plan as one page that needs no network.")]
Certify = Annotated[
    bool, typer.Option("--certify", help="Compile every piece for the topology, by its real compiler, and compare.")
]
Card = Annotated[
    Path | None,
    typer.Option(help="Description of the topology's GPUs (GpuTargetConfigProto): their memory, and for --certify."),
]
Timeout = Annotated[float, typer.Option(help="Seconds that one piece may take to compile, for --certify.", min=1.0)]
Diff = Annotated[
    tuple[Path, Path] | None, typer.Option("--diff", metavar="A.json B.json", help="Say what moved between two plans.")
]


class LogFormat(enum.StrEnum):
    """Formats of log lines."""

    text = "text"
    json = "json"


Launcher = Annotated[
    str | None,
    typer.Option(help="Whose variables say which process this is; 'none': a single process. Default: found by itself."),
]
Coordinator = Annotated[
    str | None, typer.Option(help="HOST:PORT of process 0. PORT + 1 must be free and open too.", metavar="HOST:PORT")
]
Processes = Annotated[int | None, typer.Option(help="Number of processes of the job.", min=1)]
ProcessId = Annotated[int | None, typer.Option(help="Which process this is, from 0.", min=0)]
LocalDevices = Annotated[
    str, typer.Option(help="Accelerators of this process: all, their numbers (0,1), or auto: its share by launcher.")
]
RunFolder = Annotated[
    Path | None, typer.Option(help="Folder for logs, status and memory profiles of each rank.", file_okay=False)
]
Smi = Annotated[bool, typer.Option("--smi", help="Let jax-smi track memory, for shardinit top.")]
Log = Annotated[LogFormat | None, typer.Option(help="Log lines on standard error, one per event.")]
JoinTimeout = Annotated[
    float | None,
    typer.Option(help="Seconds for all processes to join. Default: 60 on one machine, 600 on several.", min=1.0),
]
Grace = Annotated[float, typer.Option(help="Seconds between SIGTERM and SIGKILL when a job ends.", min=0.0)]
GangSize = Annotated[
    int | None, typer.Option("--processes", help="How many processes. With --per-gpu: default one per GPU.", min=1)
]
DevicesPerProcess = Annotated[int | None, typer.Option(help="Emulate that many CPU devices in each process.", min=1)]
PerGpu = Annotated[bool, typer.Option("--per-gpu", help="One GPU for each process.")]
Port = Annotated[int | None, typer.Option(help="Port of process 0. Default: a free one.", min=1, max=65534)]


def read_rules(texts: list[str] | None) -> list[tuple[str, object]]:
    """Read ``layers/*/weight=lanes,None,model``.

    Raises
    ------
    ArgumentError
        If a text is not a rule.
    """
    rules: list[tuple[str, object]] = []
    for text in texts or []:
        glob, equals, placement = text.rpartition("=")
        if not equals or not glob or not placement:
            raise ArgumentError(
                f"--rule {text!r} is not GLOB=PLACEMENT. Write for example 'layers/*/weight=replicate'."
            )
        parts = [part.strip() for part in placement.split(",")]
        single = len(parts) == 1 and (parts[0] == "replicate" or parts[0] in get_args(AskedStrategy))
        rules.append((glob, parts[0] if single else tuple(_axis(part) for part in parts)))
    return rules


def _axis(text: str) -> object:
    return {"None": None, "none": None, "-": None, "...": ...}.get(text, text)
