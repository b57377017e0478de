"""Make ``docs/ensemble-sizes.md``: which ensemble sizes fit which number of devices, for shardinit and its peers.

    python benchmarks/ensemble_sizes.py --output docs/ensemble-sizes.md

Every cell of the page comes from a run of its own, in a fresh process with that many emulated CPU devices.
"""

import argparse
import itertools
import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE
from typing import Any

from peers import describe_commit, describe_machine, describe_versions

SIZES = "1,5,8,12,64,100,1000"
DEVICES = "8,12"
W_SHAPE = (2048, 192)
V_SHAPE = (100,)
LANE_BYTES = 4 * (math.prod(W_SHAPE) + math.prod(V_SHAPE))
MIB = 1 << 20
INDIVISIBLE = (5, 7)  # lanes and devices where nothing of `w` divides
UNEVEN = (12, 8)  # lanes and devices for the other forms
VERSIONS = ("python", "shardinit", "jax", "brainstate", "flax")
NOT_EVEN = r"array axis \d+ is partitioned \d+ times, but the dimension size is \d+"


# What a child does. It imports JAX in here: the number of devices must be set first.


def start_devices(devices: int) -> None:
    """Emulate the devices: the first thing that a child does."""
    import shardinit

    shardinit.emulate_cpu(devices)


def make_module() -> Any:
    """A brainstate module with a large weight and a small vector."""
    import brainstate

    class Neurons(brainstate.nn.Module):
        def init_state(self):
            self.w = brainstate.ParamState(brainstate.random.normal(size=W_SHAPE) * 0.02)
            self.v = brainstate.HiddenState(brainstate.random.uniform(size=V_SHAPE))

    brainstate.random.seed(0)
    return Neurons()


def draw_lane(key: Any) -> dict[str, Any]:
    """The same two arrays for one lane, by hand."""
    import jax

    w_key, v_key = jax.random.split(key)
    return {"w": jax.random.normal(w_key, W_SHAPE) * 0.02, "v": jax.random.uniform(v_key, V_SHAPE)}


def lanes_sharding() -> Any:
    """The lanes over all devices, on a mesh of one axis."""
    import jax
    import numpy as np
    from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

    mesh = Mesh(np.array(jax.devices()), ("lanes",), axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec("lanes"))


def lane_keys(size: int) -> Any:
    """One key per lane."""
    import jax

    return jax.random.split(jax.random.key(0), size)


def held(w: Any, v: Any) -> dict[str, Any]:
    """What the devices hold of the two arrays, counted shard by shard."""
    import jax

    jax.block_until_ready((w, v))
    found = dict.fromkeys(jax.devices(), 0)
    for array in (w, v):
        for shard in array.addressable_shards:
            found[shard.device] += shard.data.nbytes
    if (w.shape, v.shape) != ((len(w), *W_SHAPE), (len(w), *V_SHAPE)):
        raise RuntimeError(f"made other shapes: {w.shape} and {v.shape}")
    return {
        "lanes": len(w),
        "largest_bytes": max(found.values()),
        "smallest_bytes": min(b for b in found.values() if b),
        "holding": sum(b > 0 for b in found.values()),
        "parts_of_w": len({str(s.index) for s in w.addressable_shards}),
        "parts_of_v": len({str(s.index) for s in v.addressable_shards}),
    }


def describe_plan(plan: Any) -> dict[str, Any]:
    """What shardinit planned for ``w`` and ``v``, from the plan alone."""
    axes = dict(plan.mesh_axes)
    specs = {state.spec.name: state.leaves[0].partition_spec for state in plan.states}
    parts = {name: math.prod(axes[axis] for axis in spec if axis) for name, spec in specs.items()}
    return {
        "mesh": " x ".join(f"{name}={size}" for name, size in axes.items()),
        "spec_of_w": _spec_text(specs["w"]),
        "spec_of_v": _spec_text(specs["v"]),
        "planned_parts_of_w": parts["w"],
        "planned_parts_of_v": parts["v"],
        "planned_bytes": plan.bytes_per_device,
        "reason": plan.reason,
    }


def _spec_text(spec: tuple[str | None, ...]) -> str:
    return f"P({', '.join(map(repr, spec))})"


def run_shardinit(size: int, devices: int) -> dict[str, Any]:
    """Plan for the devices by name, then really run, and compare the two to the byte."""
    import shardinit

    module = make_module()
    plan = shardinit.plan(shardinit.discover(module), shardinit.Topology("cpu", devices), axis_size=size)
    result = shardinit.shard_new_states(module, axis_size=size)
    found = {**describe_plan(plan), **held(module.w.value, module.v.value)}
    measured = result.receipt.measured_bytes
    found["as_planned"] = (
        result.plan.fingerprint == plan.fingerprint
        and len(measured) == devices - plan.idle_devices == found["holding"]
        and set(measured.values()) == {plan.bytes_per_device} == {found["largest_bytes"], found["smallest_bytes"]}
        and found["parts_of_w"] == found["planned_parts_of_w"]
        and found["parts_of_v"] == found["planned_parts_of_v"]
    )
    return found | {"receipt_bytes": sorted(set(measured.values()))}


def run_brainstate(size: int, devices: int) -> dict[str, Any]:
    """Brainstate's own initialization over devices."""
    import brainstate

    module = make_module()
    brainstate.transform.pmap2_new_states(module, {}, axis_size=size)
    return held(module.w.value, module.v.value)


def _nnx_class() -> Any:
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, key):
            drawn = draw_lane(key)
            self.w, self.v = nnx.Param(drawn["w"]), nnx.Variable(drawn["v"])

    return Net


def run_nnx(size: int, devices: int) -> dict[str, Any]:
    """A mapped constructor inside of ``nnx.jit``, with a sharding constraint on its state."""
    import jax
    from flax import nnx

    sharding, build = lanes_sharding(), nnx.vmap(_nnx_class())

    @nnx.jit
    def create(keys):
        net = build(keys)
        nnx.update(net, jax.lax.with_sharding_constraint(nnx.state(net), sharding))
        return net

    net = create(lane_keys(size))
    return held(net.w[...], net.v[...])


def run_nnx_out_shardings(size: int, devices: int) -> dict[str, Any]:
    """The same, with ``out_shardings`` instead of a constraint."""
    from flax import nnx

    net = nnx.jit(nnx.vmap(_nnx_class()), out_shardings=lanes_sharding())(lane_keys(size))
    return held(net.w[...], net.v[...])


def run_jax(size: int, devices: int) -> dict[str, Any]:
    """One program with the sharding of its outputs."""
    import jax

    made = jax.jit(jax.vmap(draw_lane), out_shardings=lanes_sharding())(lane_keys(size))
    return held(made["w"], made["v"])


def run_jax_constraint(size: int, devices: int) -> dict[str, Any]:
    """The same, with a sharding constraint instead of ``out_shardings``."""
    import jax

    sharding = lanes_sharding()
    made = jax.jit(lambda keys: jax.lax.with_sharding_constraint(jax.vmap(draw_lane)(keys), sharding))(lane_keys(size))
    return held(made["w"], made["v"])


Way = Callable[[int, int], dict[str, Any]]
WAYS: dict[str, Way] = {
    "shardinit": run_shardinit,
    "brainstate": run_brainstate,
    "nnx": run_nnx,
    "jax": run_jax,
}
OTHER_FORMS: dict[str, Way] = {"nnx_out_shardings": run_nnx_out_shardings, "jax_constraint": run_jax_constraint}


def child(way: str, size: int, devices: int) -> int:
    """Do one run and print its record as the last line."""
    start_devices(devices)
    try:
        found = (WAYS | OTHER_FORMS)[way](size, devices)
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {str(error).strip()}"}
    print(json.dumps(found), flush=True)
    return 0


# What the parent does: one child at a time, then the page.


@dataclass(frozen=True, slots=True)
class Run:
    """One child's record, or its error."""

    way: str
    size: int
    devices: int
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def error(self) -> str:
        """The first line of the exception; empty if there was none."""
        return self.found.get("error", "").split("\n")[0]

    @property
    def stopped(self) -> str:
        """Why it came to no end; empty if it did."""
        return self.found.get("stopped", "")

    @property
    def ran(self) -> bool:
        """Whether the arrays were made."""
        return not (self.error or self.stopped)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one child may take: seconds, and GiB of resident memory."""

    seconds: float
    gigabytes: float


def run_child(way: str, size: int, devices: int, limits: Limits) -> Run:
    """Run one child with none of the caller's settings of JAX, and stop it at the limits."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_", "PJRT_"))}
    command = [sys.executable, str(Path(__file__).resolve()), "--child", way, str(size), str(devices)]
    with subprocess.Popen(command, env=inherited, stdout=PIPE, stderr=PIPE, text=True) as process:
        printed, complained, stopped = _watch(process, limits)
    lines = printed.strip().splitlines()
    if stopped:
        return Run(way, size, devices, {"stopped": stopped})
    if process.returncode or not lines:
        last = "".join(complained.strip().splitlines()[-1:]) or "no message"
        return Run(way, size, devices, {"stopped": f"exit {process.returncode}: {last}"})
    return Run(way, size, devices, json.loads(lines[-1]))


def _watch(process: subprocess.Popen, limits: Limits) -> tuple[str, str, str]:
    """Both outputs of the child, and why it was stopped."""
    deadline, stopped = time.monotonic() + limits.seconds, ""
    while True:
        try:
            return *process.communicate(timeout=0.05), stopped
        except subprocess.TimeoutExpired:
            if time.monotonic() > deadline:
                stopped = f"stopped after {limits.seconds:g} s"
            elif resident_gigabytes(process.pid) > limits.gigabytes:
                stopped = f"stopped above {limits.gigabytes:g} GiB of memory for all devices together"
            if stopped:
                process.kill()


def resident_gigabytes(pid: int) -> float:
    """Resident memory of a process; 0 once it has ended."""
    try:
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0.0
    return int(found[1]) / 2**20 if found else 0.0


def shorten(error: str) -> str:
    """An exception in a few words of its own."""
    if even := re.search(NOT_EVEN, error):
        return even[0]
    words = error.partition(": ")[2] or error
    return words if len(words) <= 110 else words[:107] + "..."


def bytes_text(count: int) -> str:
    """Bytes, exactly and in MiB."""
    return f"{count:,} ({count / MIB:.2f} MiB)"


def peer_cell(run: Run) -> str:
    """What a peer did, in a table cell."""
    if run.error:
        verb = "refuses" if run.error.startswith("IndivisibleError") or run.way == "shardinit" else "fails"
        return f"{verb}: {shorten(run.error)}"
    if run.stopped:
        return f"**fails**: {run.stopped}"
    found, trouble = run.found, []
    if empty := run.devices - found["holding"]:
        trouble.append(f"{empty} {'device' if empty == 1 else 'devices'} empty")
    if found["holding"] > found["parts_of_w"] == 1:
        trouble.append(f"each of {found['holding']} devices holds all lanes")
    elif copies := found["holding"] - found["parts_of_w"]:
        trouble.append(f"{copies} hold only copies of `w`")
    if found["smallest_bytes"] != found["largest_bytes"]:
        trouble.append(f"uneven, from {bytes_text(found['smallest_bytes'])}")
    return f"runs: {bytes_text(found['largest_bytes'])}" + (f", **{', '.join(trouble)}**" if trouble else "")


def shardinit_cells(run: Run) -> list[str]:
    """What shardinit planned and did: mesh, spec of w, idle devices, bytes planned and measured."""
    if not run.ran:
        return [peer_cell(run), "", "", "", ""]
    found = run.found
    measured = ", ".join(f"{count:,}" for count in found["receipt_bytes"])
    measured += ": equal" if found["as_planned"] else ": **NOT AS PLANNED**"
    return [
        found["mesh"],
        f"`{found['spec_of_w']}`",
        str(run.devices - found["planned_parts_of_w"]),
        bytes_text(found["planned_bytes"]),
        measured,
    ]


def table(runs: list[Run], devices: int) -> list[str]:
    """The table of one number of devices."""
    head = ["lanes", "even share", "shardinit: mesh", "`w` is split", "idle", "planned", "measured"]
    head += ["brainstate `pmap2_new_states`", "flax nnx", "plain JAX"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for size in dict.fromkeys(r.size for r in runs if r.devices == devices):
        by_way = {r.way: r for r in runs if (r.size, r.devices) == (size, devices)}
        cells = [str(size), f"{size * LANE_BYTES / devices / MIB:.2f} MiB", *shardinit_cells(by_way["shardinit"])]
        cells += [peer_cell(by_way[way]) for way in ("brainstate", "nnx", "jax")]
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return lines


def count_line(runs: list[Run], way: str, title: str) -> str:
    """How often a way ran, and how often with every device holding a part of w of its own."""
    mine = [r for r in runs if r.way == way]
    ran = [r for r in mine if r.ran]
    full = [r for r in ran if r.found["holding"] == r.found["parts_of_w"] == r.devices]
    return f"| {title} | {len(ran)} of {len(mine)} | {len(full)} of {len(mine)} |"


def summary(runs: list[Run]) -> list[str]:
    """How many of the runs each way manages."""
    titles = {
        "shardinit": "shardinit",
        "brainstate": "brainstate `pmap2_new_states`",
        "nnx": "flax nnx",
        "jax": "plain JAX",
    }
    head = ["| | runs | runs, and every device holds its own part of `w` |", "|---|---|---|"]
    return [*head, *(count_line(runs, way, title) for way, title in titles.items())]


def copies_of_v(runs: list[Run]) -> list[str]:
    """What shardinit's copies of the small vector cost, where there are any."""
    lines = []
    for run in runs:
        if run.way != "shardinit" or not run.ran or run.found["parts_of_v"] == run.devices:
            continue
        extra = run.found["largest_bytes"] - run.size * LANE_BYTES / run.devices
        lines.append(
            f"| {run.size} | {run.devices} | `{run.found['spec_of_v']}` | {run.found['parts_of_v']} | "
            f"{extra:,.0f} ({100 * extra * run.devices / (run.size * LANE_BYTES):.3f} %) |"
        )
    if not lines:
        return ["Nothing was copied."]
    head = ["| lanes | devices | `v` is split | different parts of `v` | bytes per device above the even share |"]
    return [*head, "|---|---|---|---|---|", *lines]


def messages(runs: list[Run]) -> list[str]:
    """The first message of each kind of refusal, per way."""
    first: dict[tuple[str, str], Run] = {}
    for run in runs:
        if run.error:
            first.setdefault((run.way, re.sub(r"\d+", "N", shorten(run.error))), run)
    return [f"- {r.way}, lanes={r.size}, devices={r.devices}: `{r.error.replace('`', '')}`" for r in first.values()]


def make_page(runs: list[Run], others: list[Run], indivisible: list[Run], limits: Limits, command: str) -> str:
    """The whole page; ``others`` are the other forms of the peers, ``indivisible`` is shardinit's worst case."""
    versions, machine = describe_versions(), describe_machine()
    lines = [
        "# Which ensemble sizes fit which number of devices",
        "",
        f"A module with a weight `w` float32{list(W_SHAPE)} and a vector `v` float32{list(V_SHAPE)} "
        f"({LANE_BYTES:,} bytes per lane, {LANE_BYTES / MIB:.2f} MiB) is initialized for several numbers of lanes, on "
        "emulated CPU devices. Every outcome is from a run in a process of its own.",
        "",
        f"`{command}`, {time.strftime('%Y-%m-%d')}, commit {describe_commit()}, "
        f"{', '.join(f'{name} {versions[name]}' for name in VERSIONS)}; "
        f"{machine['cores']} cores, {machine['memory']} memory.",
        "",
        *summary(runs),
        "",
        "This counts the tables below. Where no axis of `w` divides as needed, shardinit leaves devices idle: "
        "[an example](#what-shardinit-copies).",
        "",
        "- **even share**: bytes of all lanes, divided by the number of devices.",
        "- **idle**: devices that hold nothing but copies of other devices' parts of `w`, from the plan; in every "
        "run the parts that the devices held were counted too.",
        "- **planned**: bytes per device in the plan, which is made without any device. **measured**: what every "
        "single device held after the run, by the receipt and counted again shard by shard.",
        "- Peers: the bytes of the fullest device. *refuses*: JAX says that the lanes cannot be divided. *fails*: any "
        "other exception, or a limit. Messages are quoted in short; [whole ones](#messages) are below.",
    ]
    for devices in dict.fromkeys(r.devices for r in runs):
        lines += ["", f"## {devices} devices", "", *table(runs, devices)]
    lines += [
        "",
        "## What the peers ran",
        "",
        "- brainstate: `brainstate.transform.pmap2_new_states(module, {}, axis_size=lanes)`.",
        "- flax nnx: `nnx.vmap` of the constructor inside of `nnx.jit`, and a sharding constraint "
        '`PartitionSpec("lanes")` on its state.',
        '- plain JAX: `jax.jit(jax.vmap(init), out_shardings=NamedSharding(mesh, PartitionSpec("lanes")))(keys)`.',
        "",
        "Whether uneven lanes are refused or copied to every device depends on the form and not on the library. The "
        f"other form of each, with {UNEVEN[0]} lanes on {UNEVEN[1]} devices:",
        "",
        *(f"- `{run.way}`: {peer_cell(run)}" for run in others),
        "",
        f"A run is stopped after {limits.seconds:g} s, or above {limits.gigabytes:g} GiB of memory: emulated devices "
        "share the memory of one machine, so copies for all of them add up there. Real devices, each with memory of "
        "its own, may hold what fails here.",
        "",
        "The mesh of flax nnx and plain JAX has one axis over all devices here. Their users can reach the same "
        "placements as shardinit by hand, with a mesh of two axes and a `PartitionSpec` per array for each number of "
        "lanes, or can use fewer devices or more lanes. This page shows what happens without that.",
        "",
        "## What shardinit copies",
        "",
        "Where the lanes do not divide the devices, only arrays of at least 1 MiB per device are split further. `v` is "
        "smaller, so devices with the same lanes hold the same part of it:",
        "",
        *copies_of_v(runs),
        "",
        "A number of devices whose other factor divides no axis of `w` is the worst case: copies of everything would "
        "be the only way to use all devices, so some stay idle. "
        f"{INDIVISIBLE[0]} lanes on {INDIVISIBLE[1]} devices:",
        "",
        *table(indivisible, INDIVISIBLE[1]),
        "",
        "## Messages",
        "",
        *(messages(runs) or ["There were none."]),
    ]
    return "\n".join(lines) + "\n"


def measure(sizes: list[int], devices: list[int], ways: Iterable[str], limits: Limits) -> list[Run]:
    """Run all children, one at a time."""
    runs = []
    for count, size, way in itertools.product(devices, sizes, ways):
        started = time.perf_counter()
        runs.append(run := run_child(way, size, count, limits))
        outcome = " ".join(f"{k}={v}" for k, v in run.found.items())
        seconds = time.perf_counter() - started
        print(f"{size:5} lanes {count:3} devices {way:18} {seconds:5.1f} s  {outcome}", flush=True)
    return runs


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description="Make the page of ensemble sizes.")
    parser.add_argument("--sizes", default=SIZES, help="numbers of lanes, separated by commas")
    parser.add_argument("--devices", default=DEVICES, help="numbers of devices, separated by commas")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds that one child may take")
    parser.add_argument("--memory", type=float, default=14.0, help="GiB of resident memory that one child may take")
    parser.add_argument("--output", type=Path, default=Path("docs/ensemble-sizes.md"), help="page to write")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Measure and write the page, or be a child."""
    options = parse()
    if options.child:
        way, size, devices = options.child
        return child(way, int(size), int(devices))
    sizes, devices = ([int(number) for number in text.split(",")] for text in (options.sizes, options.devices))
    limits = Limits(options.timeout, options.memory)
    runs = measure(sizes, devices, WAYS, limits)
    indivisible = measure([INDIVISIBLE[0]], [INDIVISIBLE[1]], WAYS, limits)
    others = measure([UNEVEN[0]], [UNEVEN[1]], OTHER_FORMS, limits)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(make_page(runs, others, indivisible, limits, " ".join(["python", *sys.argv])))
    print(f"written: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
