"""Start-up: ``shardinit launch`` against the bare recipe, whole processes, side by side in one run.

``python benchmarks/startup.py`` starts jobs of 1, 2, 4 and 8 processes, one emulated device each, in turn:

- bare: a loop that starts ``jax.distributed.initialize`` and one sharded normal draw (``jit`` with ``out_shardings``);
- bare with brainstate: the same, with the module's own eager initialization as brainstate's users write it;
- shardinit: ``shardinit launch`` of a module with the same draw.

It prints medians, and the ratio of each pair.
"""

import argparse
import datetime
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIZES = (1, 2, 4, 8)

BARE = """
import os, sys
import jax
rank, count = int(os.environ["JAX_PROCESS_ID"]), int(os.environ["JAX_NUM_PROCESSES"])
if count > 1:
    jax.distributed.initialize(os.environ["JAX_COORDINATOR_ADDRESS"], count, rank)
{imports}
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
mesh = Mesh(jax.devices(), ("lanes",))
keys = jax.random.split(jax.random.key(0), len(jax.devices()))
draw = jax.jit(jax.vmap(lambda key: jax.random.normal(key, (256, 256))), out_shardings=NamedSharding(mesh, P("lanes")))
draw(keys).block_until_ready()
"""

NET = """
import brainstate
class Net(brainstate.nn.Module):
    def init_state(self):
        self.w = brainstate.ParamState(brainstate.random.normal(size=(256, 256)))
def build():
    return Net()
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def bare(size: int, folder: Path, imports: str = "") -> float:
    """Seconds of the bare recipe, from the first start to the last end."""
    port = free_port()
    began = time.perf_counter()
    started = []
    for rank in range(size):
        env = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": "1",
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": str(size),
            "JAX_PROCESS_ID": str(rank),
        }
        code = BARE.format(imports=imports)
        started.append(subprocess.Popen([sys.executable, "-c", code], env=env, cwd=folder, stderr=subprocess.DEVNULL))
    codes = [process.wait(timeout=180) for process in started]
    assert codes == [0] * size, codes
    return time.perf_counter() - began


def ours(size: int, folder: Path) -> float:
    """Seconds of ``shardinit launch``."""
    command = [sys.executable, "-m", "shardinit.cli.main", "launch", "--processes", str(size)]
    command += ["--devices-per-process", "1", "--run-folder", str(folder / "run"), "net.py:build", "--axis-size"]
    began = time.perf_counter()
    done = subprocess.run([*command, str(size)], cwd=folder, capture_output=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "net.py").write_text(NET)
        for size in SIZES:
            measured: dict[str, list[float]] = {"bare": [], "brainstate": [], "shardinit": []}
            for _ in range(asked.rounds + 1):
                measured["bare"].append(bare(size, folder))
                measured["brainstate"].append(bare(size, folder, "import brainstate"))
                measured["shardinit"].append(ours(size, folder))
            seconds = {what: statistics.median(times[1:]) for what, times in measured.items()}  # the first warms up
            ratios = [
                statistics.median(a / b for a, b in zip(measured["shardinit"][1:], measured[what][1:], strict=True))
                for what in ("bare", "brainstate")
            ]
            row = f"| {size} | {seconds['bare']:.2f} | {seconds['brainstate']:.2f} | {seconds['shardinit']:.2f} "
            rows.append(f"{row}| {ratios[0]:.2f} | {ratios[1]:.2f} |")
            print(rows[-1], flush=True)
    if asked.output:
        asked.output.write_text(page(rows, asked.rounds), encoding="utf-8")


PAGE = """# Start-up of jobs

Made by `python benchmarks/startup.py --output benchmarks/results/startup.md` on {date}, {cores} CPU cores,
medians of {rounds} rounds after one that warms up. Seconds of the whole job, from the first process started to the
last one ended: one 256x256 draw per process, one device each. *Bare* is a loop over processes with
`jax.distributed.initialize` and `jit` with `out_shardings`; *with brainstate* also imports brainstate, as each user
of its modules does. `shardinit launch` adds the supervisor, the comparison of programs, exact numerics, log, status
and report. Ratios are medians over rounds.

| processes | bare | with brainstate | shardinit launch | / bare | / with brainstate |
|---|---|---|---|---|---|
{rows}
"""


def page(rows: list[str], rounds: int) -> str:
    return PAGE.format(date=datetime.date.today(), cores=os.cpu_count(), rounds=rounds, rows="\n".join(rows))


if __name__ == "__main__":
    main()
