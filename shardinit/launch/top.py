"""``shardinit top``: every rank's and device's memory, live, from the files of a run's folder."""

import sys
import time
from pathlib import Path

from rich.console import Console
from rich.live import Live

from shardinit.errors import ArgumentError
from shardinit.launch.run_view import read_run
from shardinit.report.status import WIDTH, status_table
from shardinit.spec.codec import to_json
from shardinit.spec.run_view import RunView


def show(folder: Path, interval: float = 1.0, once: bool = False, as_json: bool = False) -> None:
    """Show a run until every rank has ended; once, if nobody is at a terminal.

    Parameters
    ----------
    folder
        The run's folder.
    interval
        Seconds between two looks.
    once
        Look once.
    as_json
        Print one JSON object, once.

    Raises
    ------
    ArgumentError
        If there is no run in the folder, or the interval is not above 0.
    """
    if not interval > 0:
        raise ArgumentError(f"interval={interval} s is not above 0. Pass for example --interval 1.")
    try:
        view = read_run(folder, time.time())
        if as_json:
            print(to_json(view))
        elif once or not sys.stdout.isatty():
            console = Console(width=None if sys.stdout.isatty() else WIDTH)
            console.print(status_table(view, console.width))
        else:
            _watch(folder, interval, view)
    except KeyboardInterrupt:
        return


def _watch(folder: Path, interval: float, view: RunView) -> None:
    console = Console()
    live = Live(status_table(view, console.width), console=console, auto_refresh=False)
    try:  # not `with`: Ctrl-C while it starts would leave the cursor hidden
        live.start(refresh=True)
        while not view.over:
            time.sleep(interval)
            view = read_run(folder, time.time())
            live.update(status_table(view, console.width), refresh=True)
    finally:
        live.stop()
