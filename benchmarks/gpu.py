"""What shardinit does on the machine's own accelerator: values, memory, speed, each in a process of its own.

    python benchmarks/gpu.py --output benchmarks/results/gpu

Writes ``OUTPUT.md`` and ``OUTPUT.json``. ``--platform cpu --gib 0.1`` tries the script itself on a machine without
an accelerator; its numbers mean nothing then, and what a CPU does not tell is a dash.
"""

import datetime
import json
import os
import platform as machine
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = {"deep_rnn": 64, "ei_network": 64, "mlp96": 8}  # name, lanes
LANES = 16
PACKAGES = ("shardinit", "jax", "jaxlib", "brainstate", "brainpy", "numpy")
REPEATS = 5


# ---- what a child measures; each returns rows of a table


def values() -> list[dict[str, Any]]:
    """Compare every state of the test modules and examples with eager brainstate on this device, bit for bit."""
    import brainstate
    import jax
    import numpy as np

    import shardinit
    from tests.modules import Draws, Nested, Normalized, Orthogonal, Values

    def bits(state) -> list[bytes]:
        leaves = jax.tree.leaves(state.value)
        keys = [jax.dtypes.issubdtype(getattr(x, "dtype", None), jax.dtypes.prng_key) for x in leaves]
        return [np.asarray(jax.random.key_data(x) if key else x).tobytes() for x, key in zip(leaves, keys, strict=True)]

    makers = {m.__name__: m for m in (Draws, Nested, Normalized, Orthogonal, Values)} | {
        name: _example(name).build for name in EXAMPLES
    }
    rows = []
    for name, make in makers.items():
        for numerics in ("exact", "fused"):
            found = []
            for function in (brainstate.transform.vmap2_new_states, shardinit.shard_new_states):
                brainstate.random.seed(7)
                module = make()
                options = {"numerics": numerics} if function is shardinit.shard_new_states else {}
                found.append((function(module, {}, axis_size=8, **options), module))
            (theirs, _), (result, _) = found
            pairs = [(a, b) for axis in theirs for a, b in zip(theirs[axis], result.states[axis], strict=True)]
            other = sum(bits(a) != bits(b) for a, b in pairs)
            notes = " ".join(result.receipt.notes)
            row = {"module": name, "numerics": numerics, "states": len(pairs), "other bits": other, "notes": notes}
            rows.append(row)
    return rows


def memory(name: str, gib: float) -> list[dict[str, Any]]:
    """Hold the peak of the plan and of the certificate against what the backend measured."""
    import brainstate
    import jax

    import shardinit

    if name == "large":
        size = int(gib * 2**30 / LANES / 4 / 8)

        class Large(brainstate.nn.Module):
            def init_state(self):
                for at in range(8):
                    setattr(self, f"w{at}", brainstate.ParamState(brainstate.random.normal(size=(size,))))

        module, lanes = Large(), LANES
    else:
        module, lanes = _example(name).build(), EXAMPLES[name]
    program = shardinit.discover(module)
    plan = shardinit.plan(program, shardinit.Topology.local(), axis_size=lanes)
    try:
        certified = plan.certify().peak_bytes
    except shardinit.errors.ShardInitError as error:
        certified = str(error).splitlines()[0]
    before = _peak(jax.devices()[0])
    shardinit.execute(shardinit.compile(program, plan))
    measured = _peak(jax.devices()[0])
    share = round(measured / plan.peak_bytes, 3) if measured else None
    return [
        {
            "what": name,
            "lanes": lanes,
            "states": plan.bytes_per_device,
            "planned peak": plan.peak_bytes,
            "certified peak": certified,
            "peak before": before,
            "measured peak": measured,
            "measured / planned": share,
        }
    ]


def bandwidth(gib: float, profile: str) -> list[dict[str, Any]]:
    """Bytes per second of ``rerun``, as a share of what one compiled fill of the same bytes writes."""
    import brainstate
    import jax
    import jax.numpy as jnp

    import shardinit

    size = int(gib * 2**30 / LANES / 4 / 8)
    draws: dict[str, Callable[[], Any]] = {
        "zeros": lambda: jnp.zeros(size),
        "uniform": lambda: brainstate.random.uniform(size=(size,)),
        "normal": lambda: brainstate.random.normal(size=(size,)),
    }
    fill = jax.jit(lambda x: [jnp.full((LANES, size), x + at) for at in range(8)])
    bare = LANES * size * 4 * 8 / _median(lambda: fill(1.0))
    rows = [{"what": "bare fill", "GB/s": round(bare / 1e9, 1), "share": 1.0, "cold s": None}]
    for name, draw in draws.items():

        class Drawn(brainstate.nn.Module):
            def init_state(self, draw=draw):
                for at in range(8):
                    setattr(self, f"w{at}", brainstate.ParamState(draw()))

        started = time.perf_counter()
        result = shardinit.shard_new_states(Drawn(), axis_size=LANES)
        cold = time.perf_counter() - started
        speed = result.plan.bytes_per_device / _median(result.rerun)
        rows.append(
            {"what": name, "GB/s": round(speed / 1e9, 1), "share": round(speed / bare, 3), "cold s": round(cold, 2)}
        )
        if profile:
            with jax.profiler.trace(f"{profile}/{name}"):
                jax.block_until_ready(_values(result.rerun()))
        del result
    return rows


def _example(name: str):
    sys.path.insert(0, str(ROOT / "examples"))
    return __import__(name)


def _peak(device) -> int | None:
    return (device.memory_stats() or {}).get("peak_bytes_in_use")


def _values(made: Any) -> Any:
    states = getattr(made, "states", None)
    return made if states is None else [s.value for group in states.values() for s in group]


def _median(make: Callable[[], Any]) -> float:
    import jax

    seconds = []
    for _ in range(REPEATS + 1):  # the first is not counted
        started = time.perf_counter()
        jax.block_until_ready(_values(make()))
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


# ---- the report


def child(arguments: list[str], platform: str, timeout: float) -> list[dict[str, Any]]:
    """Run one measurement in a fresh process; a failure is a row of its own."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}", "JAX_PLATFORMS": platform}
    command = [sys.executable, __file__, "--child", *arguments]
    try:
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return [{"what": " ".join(arguments), "failed": f"no end after {timeout:g} s"}]
    lines = [line for line in done.stdout.splitlines() if line.startswith("[{")]
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return [{"what": " ".join(arguments), "failed": f"exit code {done.returncode}: {last}"}]
    return json.loads(lines[-1])


def table(rows: list[dict[str, Any]]) -> list[str]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [["-" if row.get(n) is None else str(row.get(n)).replace("|", "/") for n in names] for row in rows]
    return ["| " + " | ".join(line) + " |" for line in (names, ["---"] * len(names), *cells)]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "-"


def main(
    arguments: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    output: Annotated[Path, typer.Option(help="Results, without ending.")] = ROOT / "benchmarks/results/gpu",
    platform: Annotated[str, typer.Option(help="Backend of JAX.")] = "cuda",
    gib: Annotated[float, typer.Option(help="Size of the large ensemble.")] = 30.0,
    profile: Annotated[str, typer.Option(help="Folder for a profile of each rerun.")] = "",
    timeout: Annotated[float, typer.Option(help="Seconds for each measurement.")] = 900.0,
    child_of: Annotated[bool, typer.Option("--child", hidden=True)] = False,
) -> None:
    """Measure on this machine's accelerator, and write a report."""
    if child_of:
        what, *rest = arguments or []
        measure = {"values": values, "memory": memory, "bandwidth": bandwidth}[what]
        numbers = [json.loads(r) if r.replace(".", "").isdigit() else r for r in rest]
        print(json.dumps(measure(*numbers)))
        return
    sections = {
        "Values, beside eager brainstate on the same device": [["values"]],
        "Memory, bytes on one device": [["memory", name, str(gib)] for name in (*EXAMPLES, "large")],
        "Speed of rerun": [["bandwidth", str(gib / 3), profile]],
    }
    found = {
        title: [row for each in jobs for row in child(each, platform, timeout)] for title, jobs in sections.items()
    }
    device = child_device(platform)
    lines = ["# shardinit on " + device, "", f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC.", ""]
    lines += [f"`python benchmarks/gpu.py --platform {platform} --gib {gib:g}`", ""]
    versions = [f"{name} {_version(name)}" for name in PACKAGES]
    lines += [f"Versions: {', '.join(versions)}, Python {machine.python_version()}."]
    for title, rows in found.items():
        lines += ["", f"## {title}", "", *table(rows)]
    output.parent.mkdir(parents=True, exist_ok=True)
    output.with_suffix(".json").write_text(json.dumps({"device": device, **found}, indent=1) + "\n")
    output.with_suffix(".md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    if any("failed" in row for rows in found.values() for row in rows):
        raise typer.Exit(1)


def child_device(platform: str) -> str:
    code = "import jax; d = jax.devices(); print(len(d), 'x', d[0].device_kind)"
    environment = {**os.environ, "JAX_PLATFORMS": platform}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        print(f"JAX finds no device of platform={platform}: {last}", file=sys.stderr)
        raise typer.Exit(2)
    return done.stdout.strip()


if __name__ == "__main__":
    typer.run(main)
