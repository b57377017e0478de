"""A progress bar on a terminal, nothing elsewhere."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn

Update = Callable[[int, int], None]


@contextlib.contextmanager
def progress_bar() -> Iterator[Update]:
    """Yield a function of pieces done and their total that moves a bar on standard error."""
    console = Console(file=sys.stderr)
    with Progress(
        *Progress.get_default_columns(), TimeElapsedColumn(), console=console, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("initializing", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
