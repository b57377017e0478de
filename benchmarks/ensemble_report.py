"""The page of ensemble sizes, from the records of all runs."""

import math
import re
import time
from dataclasses import dataclass, field
from typing import Any

from ensemble_child import V_SHAPE, W_SHAPE
from peers import describe_commit, describe_machine, describe_versions

LANE_BYTES = 4 * (math.prod(W_SHAPE) + math.prod(V_SHAPE))
MIB = 1 << 20
INDIVISIBLE = (5, 7)  # lanes and devices where nothing of `w` divides
UNEVEN = (12, 8)  # lanes and devices for the other forms
VERSIONS = ("python", "shardinit", "jax", "brainstate", "flax")
NOT_EVEN = r"array axis \d+ is partitioned \d+ times, but the dimension size is \d+"


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
