"""Folders of runs, made by hand."""

import gzip
import io
import json
import os
import socket
import time

import psutil
from rich.console import Console

from shardinit.launch.folder import write_record
from shardinit.launch.run_view import read_run
from shardinit.report.status import status_table
from shardinit.spec.codec import to_fields
from shardinit.spec.run import DeviceStatus, EndRecord, LaunchRecord, RankStatus

HOST = socket.gethostname()
NOW = time.time()
NO_PROCESS = 2**22 - 1  # above Linux's largest process id


class Run:
    """A run's folder, whose ranks all have this process."""

    def __init__(self, folder, processes=1):
        self.folder, self.processes = folder, processes
        self.launch()

    def launch(self, pid=None):
        record = LaunchRecord(self.processes, ("run",), NOW, pid or os.getpid(), HOST)
        write_record(self.folder / "launch.json", record)

    def rank(self, rank=0, age=0.5, devices=("cpu:0",), **fields):
        """Write the status of a rank; ``fields`` may be what none has."""
        status = RankStatus(
            rank=rank,
            processes=self.processes,
            pid=os.getpid(),
            host=HOST,
            started=psutil.Process().create_time(),
            time=NOW - age,
            state="executing",
            done=3,
            total=7,
            rss_bytes=3 * 2**20,
            planned_bytes=2048,
            devices=tuple(DeviceStatus(d) if isinstance(d, str) else d for d in devices),
        )
        folder = self.folder / f"rank-{rank}"
        folder.mkdir(exist_ok=True)
        (folder / "status.json").write_text(json.dumps({**to_fields(status), **fields}))
        return folder

    def profile(self, rank=0, age=0.5, **held):
        path = self.folder / f"rank-{rank}" / "memory.prof"
        path.write_bytes(profile_of(**held))
        os.utime(path, (NOW - age, NOW - age))

    def ended(self, rank=0, code=0, why=""):
        folder = self.folder / f"rank-{rank}"
        folder.mkdir(exist_ok=True)
        write_record(folder / "ended.json", EndRecord(code, why, NOW - 1))

    def view(self):
        return read_run(self.folder, NOW)


def profile_of(**held):
    """A device memory profile by hand: bytes per device."""

    def field(number, content):
        return bytes([number << 3 | 2, len(content)]) + content

    def whole(number):
        head = b""
        while number > 127:
            head, number = head + bytes([number & 127 | 128]), number >> 7
        return head + bytes([number])

    texts = ["", "bytes", "kind", "buffer", "device", *(name.replace("_", ":") for name in held)]
    samples = [
        field(2, field(2, whole(size)) + field(3, b"\x08\x02\x10\x03") + field(3, b"\x08\x04\x10" + whole(5 + place)))
        for place, size in enumerate(held.values())
    ]
    return gzip.compress(
        field(1, b"\x10\x01") + b"".join(samples) + b"".join(field(6, text.encode()) for text in texts)
    )


def text(view, width=120):
    console = Console(file=io.StringIO(), width=width, no_color=True)
    console.print(status_table(view, width))
    return console.file.getvalue()


def words(view):
    """The table as text, without its line breaks."""
    return " ".join(text(view).split())
