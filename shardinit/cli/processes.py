"""The commands about processes: ``launch``, ``top``, ``doctor``, and ``run`` as one process of several."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from shardinit.backend.rank import Rank
from shardinit.cli import failure, output
from shardinit.cli import options as o
from shardinit.cli.failure import code_of, fail, user_traceback
from shardinit.cli.target import check_target
from shardinit.errors import JoinError, LaunchError, ShardInitError, TargetError
from shardinit.launch.control import Hub, Spoke, cannot_listen
from shardinit.launch.detect import detect
from shardinit.launch.exits import DONE, FAILED, NEVER_CAME, PREEMPTED, USAGE
from shardinit.launch.folder import lost_text
from shardinit.launch.gang import PROGRAM, new_folder, rank_environment, start, try_port, write_launch
from shardinit.launch.launch_spec import LaunchSpec
from shardinit.launch.logs import Echo
from shardinit.launch.supervised import is_supervised, join_seconds
from shardinit.launch.supervisor import Job, Supervisor
from shardinit.spec.run import GangSpec

LINGER_SECONDS = 0.5


def launch(
    context: typer.Context,
    processes: o.GangSize = None,
    devices_per_process: o.DevicesPerProcess = None,
    per_gpu: o.PerGpu = False,
    run_folder: o.RunFolder = None,
    smi: o.Smi = False,
    log: o.Log = o.LogFormat.text,
    join_timeout: o.JoinTimeout = None,
    grace: o.Grace = 10.0,
    port: o.Port = None,
) -> None:
    """Start several processes on this machine and watch them: [--] TARGET and the options of run.

    Lines that a process prints have its rank before them, and are kept in the run's folder. When one fails, all end.
    """
    root = context.find_root().command
    asked = root.commands["run"].make_context("run", list(context.args), parent=context.parent).params  # type: ignore[attr-defined]
    for name in ("launcher", "coordinator", "processes", "process_id", "run_folder", "join_timeout"):
        if asked[name] is not None:
            flag = f"--{name.replace('_', '-')}"
            fail(
                USAGE,
                f"{flag} comes twice, or is not for launch, which says itself which process is which. Leave it out",
            )
    if per_gpu and devices_per_process is not None:
        fail(USAGE, "--per-gpu and --devices-per-process exclude each other: the one is for GPUs, the other for CPUs")
    try:
        check_target(asked["target"])
    except TargetError as error:
        fail(USAGE, str(error))
    if devices_per_process is not None and asked["devices"] is not None:
        fail(USAGE, "--devices-per-process and --devices say the same. Leave --devices out")
    gpus = _gpus() if per_gpu else []
    spec = GangSpec(
        arguments=(*context.args, *(["--smi"] if smi else []), "--log", log.value if log else "text"),
        processes=_gang_size(processes, per_gpu, gpus),
        devices_per_process=devices_per_process,
        gpus=tuple(gpus),
        folder=None if run_folder is None else str(run_folder),
        port=port,
        join_seconds=join_timeout,
        grace_seconds=grace,
    )
    echo = Echo(log == o.LogFormat.json, 0 if asked["as_json"] else None)
    signals = _Signals()
    try:
        gang = start(spec, echo)
    except JoinError as error:
        output.warn(str(error))
        raise typer.Exit(NEVER_CAME) from None
    except (LaunchError, OSError) as error:
        _fail_for_folder(run_folder, error)
    signals.go_to(gang.supervisor)
    code = gang.wait()
    assert code is not None
    raise typer.Exit(_code_with_output(echo, code))


class _Signals:
    """Lets signals ask a supervisor to end the job, as soon as there is one; a second one changes nothing."""

    def __init__(self) -> None:
        self.supervisor: Supervisor | None = None
        self.first: int | None = None
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup, or & in a script
                signal.signal(number, self._ask)

    def go_to(self, supervisor: Supervisor) -> None:
        """Say which supervisor is to be asked."""
        self.supervisor = supervisor
        self._tell()

    def _ask(self, number: int, frame: object) -> None:
        self.first = self.first or number
        self._tell()

    def _tell(self) -> None:
        if self.supervisor is not None and self.first is not None:
            name = signal.Signals(self.first).name
            self.supervisor.ask_to_end(f"{self.supervisor.who} was asked to end by {name}")


def top(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")],
    interval: Annotated[float, typer.Option(help="Seconds between looks.", min=0.1)] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look once.")] = False,
    as_json: o.AsJson = False,
) -> None:
    """Show the memory of every rank and device of a run, live, from the files in its folder."""
    from shardinit.launch.top import show

    try:
        show(run, interval, once, as_json)
    except ShardInitError as error:
        fail(USAGE, str(error))


def doctor(as_json: o.AsJson = False) -> None:
    """Say what is wrong with this machine and its environment, and how to fix it."""
    from shardinit.launch.doctor import run_checks, show

    raise typer.Exit(show(run_checks(os.environ), as_json))


def find_spec(
    launcher: str | None,
    coordinator: str | None,
    processes: int | None,
    process_id: int | None,
    local_devices: str,
    devices: int | None,
) -> LaunchSpec:
    """Find out which process of how many this is, or leave. Emulated ``devices`` are CPUs, whatever else is there."""
    try:
        return detect(
            os.environ if devices is None else {**os.environ, "JAX_PLATFORMS": "cpu"},
            coordinator=coordinator,
            processes=processes,
            process_id=process_id,
            local_devices=local_devices,
            launcher=launcher,
        )
    except LaunchError as error:
        fail(USAGE, str(error))


def supervise_rank(
    spec: LaunchSpec,
    run_folder: Path | None,
    log: o.LogFormat | None,
    join_timeout: float | None,
    grace: float,
    as_json: bool,
) -> int:
    """Be the parent of this rank: the same command again as a child, and a channel to the other ranks' parents."""
    folder = _new_temporary_folder() if run_folder is None else _new_folder(run_folder, [spec.process_id])
    seconds = join_seconds(spec) if join_timeout is None else join_timeout
    command = [*PROGRAM, *sys.argv[1:]]
    echo = Echo(log == o.LogFormat.json, 0 if as_json else None)
    hint = " ".join(warning for warning in spec.warnings if "proxy" in warning)
    job = Job(
        command, {spec.process_id: rank_environment(folder, seconds)}, spec.processes, folder, seconds, grace, hint
    )
    if spec.process_id == 0:
        write_launch(folder, spec.processes, command)
    code = asyncio.run(_supervise(spec, job, echo))
    if run_folder is None and code == 0:
        shutil.rmtree(folder, ignore_errors=True)
    elif run_folder is None:
        echo.say(f"logs of rank {spec.process_id} are in {folder}", folder=str(folder))
    return _code_with_output(echo, code)


def _code_with_output(echo: Echo, code: int) -> int:
    """Exit code of a job once its output is written, or is lost."""
    error = echo.finish()
    if error is None or code != DONE:
        return code
    output.warn(f"cannot write standard output: {error.strerror}")
    return FAILED


async def _supervise(spec: LaunchSpec, job: Job, echo: Echo) -> int:
    address, port = spec.coordinator_address, spec.control_port
    assert address is not None
    assert port is not None
    channel = (Hub if spec.process_id == 0 else Spoke)(spec.process_id, spec.processes, address.host, port)
    try:
        if spec.process_id == 0:
            for number in (port - 1, port):
                try_port(number)
        await channel.open()
    except OSError as error:
        echo.say(cannot_listen(number, error).why, code=NEVER_CAME)
        return NEVER_CAME
    try:
        supervisor = Supervisor(job, echo, channel)
        _Signals().go_to(supervisor)
        return await supervisor.run()
    finally:
        await channel.close()


@contextlib.contextmanager
def as_rank(spec: LaunchSpec, run_folder: Path | None, log: o.LogFormat | None, smi: bool) -> Iterator[Rank]:
    """Be a rank: alone, or a supervisor's child, which leaves without JAX's exit barrier if something is raised."""
    supervised = os.environ.get("SHARDINIT_RUN_FOLDER") if is_supervised() else None
    folder = Path(supervised) if supervised else None
    lost = ""
    is_own = folder is None and (smi or run_folder is not None)
    if is_own:
        folder = _new_folder(run_folder, [spec.process_id])
        write_launch(folder, 1, sys.argv)
        lost = lost_text(folder, spec.process_id)
        output.warn(lost or f"logs and status in {folder}")
    rank = Rank(spec, folder, log.value if log else "text" if spec.is_distributed else None, smi)
    rank.watched()
    failure.RANK = rank
    if not spec.is_distributed:
        yield rank
        if folder is not None:
            if is_own and not lost and (lost := lost_text(folder, spec.process_id)):
                output.warn(lost)
            _leave(DONE)
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    try:
        yield rank
        code = DONE
    except BaseException as error:
        code = _exit_code(error)
        if rank.is_first:  # others that fail alike ask the store of this process who said so first
            time.sleep(LINGER_SECONDS)
    _leave(code)


def _leave(code: int) -> NoReturn:
    """End at once: threads that watch (status, jax-smi) may be inside of XLA, where Python's end would abort them."""
    if (error := output.lost()) is not None and (output.is_json_alone() or not is_supervised()):  # else it's a log
        output.warn(f"cannot write standard output: {error.strerror}")
        code = code or FAILED
    sys.stderr.flush()
    os._exit(code)


def _exit_code(error: BaseException) -> int:
    """Exit code of what ended a rank, said to the user if it was not yet."""
    if isinstance(error, typer.Exit):
        return error.exit_code
    if isinstance(error, SystemExit):  # by the user's own code; a rank that leaves early is not done
        print("".join(user_traceback(error)), end="", file=sys.stderr)
        return error.code if isinstance(error.code, int) and error.code else 1
    if isinstance(error, KeyboardInterrupt):
        return PREEMPTED
    with contextlib.suppress(typer.Exit):
        fail(FAILED, "this rank failed", error)
    return code_of(error, FAILED)


def _new_folder(run_folder: Path | None, ranks: Iterable[int]) -> Path:
    """Make the run's folder, and make it ours, or leave."""
    try:
        return new_folder(run_folder, ranks)
    except (LaunchError, OSError) as error:
        return _fail_for_folder(run_folder, error)


def _fail_for_folder(folder: Path | None, error: LaunchError | OSError) -> NoReturn:
    if isinstance(error, LaunchError):
        fail(USAGE, str(error))
    where = folder or error.filename or "shardinit-runs"
    fail(USAGE, f"cannot write the run's folder {where}: {error.strerror}. Name another by --run-folder DIR")


def _new_temporary_folder() -> Path:
    """Make a folder for a rank's files; one that is not there where nothing can be written."""
    try:
        return Path(tempfile.mkdtemp(prefix="shardinit-"))
    except OSError:
        return Path("/tmp") / f"shardinit-{os.getpid()}"


def _gang_size(processes: int | None, per_gpu: bool, gpus: list[str]) -> int:
    if processes is None and not per_gpu:
        fail(USAGE, "--processes is missing. Write: shardinit launch --processes 4 --devices-per-process 2 TARGET ...")
    processes = len(gpus) if processes is None else processes
    if per_gpu and processes > len(gpus):
        fail(USAGE, f"--per-gpu with processes={processes}, but visible GPUs={len(gpus)}. Use --processes {len(gpus)}")
    return processes


def _gpus() -> list[str]:
    """Names of the visible GPUs, as CUDA_VISIBLE_DEVICES takes them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() and not name.strip().startswith("-")]
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        fail(USAGE, f"--per-gpu finds no GPU: nvidia-smi failed ({error}). On CPUs use --devices-per-process N")
    return found.split()
