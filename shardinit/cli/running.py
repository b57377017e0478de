"""What ``shardinit run`` does once it knows which process of how many it is."""

import json
import shutil
import sys
import time
from typing import Any

from shardinit.backend.rank import Rank
from shardinit.cli import output
from shardinit.cli.asked import Asked
from shardinit.cli.failure import fail
from shardinit.launch.exits import FAILED
from shardinit.wording import counted, size_text


def initialize_states(asked: Asked, rank: Rank, as_json: bool) -> None:
    """Plan, compile, execute, report; the first rank prints what all have in common."""
    program, planned = asked.plan(rank)
    from shardinit.report.plan import states_text

    rank.planned_bytes = planned.bytes_per_device
    rank.write_plan(planned.to_json())
    rank.event("planned", f"{states_text(planned.states)}, {planned.bytes_per_device} bytes per device")
    if rank.is_first and not as_json:
        _show_table(planned)
    from shardinit.api.compile import compile
    from shardinit.api.execute import execute
    from shardinit.report.progress import progress_bar

    started = time.perf_counter()
    try:
        with progress_bar() as update:

            def progress(done: int, total: int) -> None:
                update(done, total)
                rank.progress(done, total)

            compiled = compile(program, planned)
            rank.event(
                "executing",
                f"{counted(len(compiled.sequence), 'piece')} by {counted(len(compiled.programs), 'program')}",
            )
            result = execute(compiled, progress=progress)
        rank.event("written", f"{counted(result.receipt.states, 'state')} in {time.perf_counter() - started:.2f} s")
        summaries = rank.finish(_summary(rank, result.receipt))
    except Exception as error:
        fail(FAILED, "initialization failed", error)
    rank.event("finished", "all ranks are done" if rank.spec.is_distributed else "done")
    if rank.is_first:
        _show_result(planned, result, summaries, as_json)


def _summary(rank: Rank, receipt: Any) -> dict[str, Any]:
    import socket

    import psutil

    return {
        "rank": rank.spec.process_id,
        "host": socket.gethostname(),
        "devices": len(receipt.measured_bytes),
        "most_bytes": max(receipt.measured_bytes.values(), default=0),
        "least_bytes": min(receipt.measured_bytes.values(), default=0),
        "rss_bytes": psutil.Process().memory_info().rss,
        "seconds": receipt.seconds,
    }


def _show_result(planned: Any, result: Any, summaries: list[dict[str, Any]], as_json: bool) -> None:
    receipt = result.receipt
    if as_json:
        found = {"plan": json.loads(planned.to_json()), "receipt": json.loads(receipt.to_json())}
        output.say(json.dumps({**found, "ranks": summaries} if len(summaries) > 1 else found))
        return
    from shardinit.report.plan import mesh_picture, rendered
    from shardinit.report.receipt import ranks_table

    print(f"\n{receipt}\n")
    if len(summaries) > 1:
        print(f"{rendered(ranks_table(summaries, planned.bytes_per_device), width())}\n")
    print(mesh_picture(planned, [str(d) for d in result.mesh.devices.flat] if result.mesh else None))


def _show_table(planned: Any) -> None:
    from shardinit.report.plan import plan_table, rendered, states_text

    print(f"{states_text(planned.states)}, axis_size={planned.axis_size}; {planned.reason}\n")
    print(rendered(plan_table(planned), width()))
    print(f"\n{size_text(planned.bytes_per_device)} per device ({planned.bytes_per_device} bytes)")


def width() -> int:
    """Columns for tables."""
    return max(shutil.get_terminal_size().columns, 114) if sys.stdout.isatty() else 120
