"""The table of a run: the memory of every rank and device, and what is wrong."""

from collections import Counter
from datetime import timedelta

from rich import box
from rich.table import Table
from rich.text import Text

from shardinit.spec.run_view import DeviceView, RankView, RunView
from shardinit.wording import counted, size_text

WIDTH, NARROW = 120, 100
COLORS = {"running": "green", "ended": "green", "stale": "yellow", "unreadable": "yellow", "gone": "red"}
OWN = {"bytes_in_use": "in use", "peak_bytes_in_use": "peak", "bytes_limit": "limit"}
NOTHING = DeviceView("-", None, None, None, None, None)


def status_table(view: RunView, width: int = WIDTH) -> Table:
    """Draw one row per device; above it, how many ranks are in which condition, and what is wrong."""
    own = [name for name in OWN if _any_device_has(view, name)]
    drawn = Table(box=box.SIMPLE_HEAD, padding=(0, 1 if width >= NARROW else 0, 0, 0), pad_edge=False, show_edge=False)
    drawn.title, drawn.title_justify, drawn.title_style = _title(view).append("\n"), "left", ""
    tight = width < NARROW and bool(own)
    drawn.add_column("rank", justify="right", no_wrap=True)
    drawn.add_column("host, pid", overflow="fold", width=7 if tight else None)
    drawn.add_column("state, elapsed", width=11 if tight else None)
    drawn.add_column("device", overflow="fold")
    for column in ("held", "plan", *(OWN[name] for name in own), "rss", "age"):
        drawn.add_column(column, justify="right")
    for rank in view.ranks:
        for number, device in enumerate(rank.devices or (NOTHING,)):
            process = [str(rank.rank), _process_text(rank), _state_text(rank)] if not number else ["", "", ""]
            memory = [_size(getattr(device, name)) for name in ("held_bytes", "planned_bytes", *own)]
            rest = ["", ""] if number else [_size(rank.rss_bytes), _age_text(rank)]
            drawn.add_row(*process, device.name, *memory, *rest)
    return drawn


def _any_device_has(view: RunView, name: str) -> bool:
    return any(getattr(device, name) is not None for rank in view.ranks for device in rank.devices)


def _title(view: RunView) -> Text:
    counts = Counter(rank.condition for rank in view.ranks)
    title = Text(
        f"{view.folder}: {counted(view.processes, 'rank')}, " + ", ".join(f"{n} {c}" for c, n in counts.items())
    )
    for note in view.notes:
        title.append(f"\n{note}", "yellow")
    for rank in view.ranks:
        for note in rank.notes:
            who = "" if note.startswith(f"rank {rank.rank} ") else f"rank {rank.rank}: "
            title.append(f"\n{who}{note}", COLORS.get(rank.condition, ""))
    return title


def _process_text(rank: RankView) -> str:
    return "-" if rank.pid is None else f"{rank.host or '?'} {rank.pid}"


def _state_text(rank: RankView) -> Text:
    state = rank.state or ""
    if rank.total:
        state = f"{state} {rank.done or 0}/{rank.total}"
    if rank.condition == "gone" and rank.code is not None:
        state = f"gone, code {rank.code if rank.code >= 0 else 128 - rank.code}"  # of a signal, as shells say it
    elif rank.condition not in ("running", "ended"):
        state = f"{rank.condition}, {state}" if state else rank.condition
    text = Text(state, COLORS.get(rank.condition, ""))
    return text if rank.elapsed is None else text.append(f", {timedelta(seconds=int(rank.elapsed))}")


def _age_text(rank: RankView) -> str:
    ages = (rank.status_age, rank.profile_age)
    return ", ".join(f"{age:.0f} s" for age in ages if age is not None) or "-"


def _size(size: int | None) -> str:
    return "-" if size is None else size_text(size)
