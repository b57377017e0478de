"""Record what shardinit does, or compare two records.

::

    python -m tests.golden record before.json     values, plans, texts, certificates, errors, commands with exit codes
    python -m tests.golden compare before.json after.json

Values are digests of bits. Times and process ids in texts are masked. A record is of one stack: do not compare records
made with other versions of jax. It uses public names alone, so the same file runs on any commit.
"""

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import shardinit

EXAMPLES = ("mlp96", "deep_rnn", "ei_network")
MASKED = re.compile(
    r"\d+\.\d\d(?= s\b|,|\n|$)|pid=\d+|pid \d+|/\S*shardinit-\S+|\d{8}-\d{6}-\d+|/\S*/(?=tests/|shardinit/)"
)


def masked(text: str) -> list[str]:
    """Text as lines, without what differs from run to run."""
    return MASKED.sub("~", text).splitlines()


def digest(value: Any) -> str:
    """Bits, dtype and shape of a value's leaves."""
    import brainunit
    import jax
    import numpy as np

    found = hashlib.sha256()
    for leaf in jax.tree.leaves(value, is_leaf=lambda x: isinstance(x, brainunit.Quantity)):
        leaf = brainunit.get_mantissa(leaf)
        if jax.dtypes.issubdtype(getattr(leaf, "dtype", None), jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.asarray(leaf)
        found.update(f"{type(leaf).__name__} {array.dtype} {array.shape} {getattr(leaf, 'weak_type', '')}".encode())
        found.update(array.tobytes())
    return found.hexdigest()[:16]


def factories() -> dict[str, Any]:
    """What is initialized, by name."""
    import importlib

    from tests import modules

    names = ("Draws", "Orthogonal", "Values", "Nested", "Normalized", "Table")
    made = {name: getattr(modules, name) for name in names}
    return made | {name: importlib.import_module(f"examples.{name}").build for name in EXAMPLES}


def initialized(name: str, make: Any) -> Iterator[tuple[str, Any]]:
    """Values, plan, receipt and text of one module on every kind of mesh."""
    import brainstate
    import jax
    import numpy as np
    from jax.sharding import Mesh

    devices = np.array(jax.devices())
    ways: dict[str, dict[str, Any]] = {
        "all devices": {},
        "one device": {"mesh": Mesh(devices[:1], ("lanes",))},
        "4x2": {"mesh": Mesh(devices.reshape(4, 2), ("lanes", "model"))},
        "gspmd": {"mesh": Mesh(devices.reshape(2, 4), ("lanes", "model")), "strategy": "gspmd"},
        "pad": {"axis_size": 12, "remainder": "pad"},
        "replicate": {"axis_size": 12, "remainder": "replicate"},
        "vmap": {"strategy": "vmap"},
        "fused": {"numerics": "fused"},
    }
    for way, options in ways.items():
        brainstate.random.seed(5)
        module = make()
        result = shardinit.shard_new_states(module, **{"axis_size": 8, **options})
        yield f"values of {name}, {way}", values(result.states)
        yield f"plan of {name}, {way}", json.loads(result.plan.to_json())
        yield f"text of {name}, {way}", masked(f"{result}\n{result.plan}")
        yield f"notes of {name}, {way}", list(result.receipt.notes)
    for function in (shardinit.vmap2_new_states, shardinit.pmap2_new_states):
        brainstate.random.seed(5)
        yield f"values of {name}, {function.__name__}", values(function(make(), {}, axis_size=8))
    program = shardinit.discover(make())
    yield f"program of {name}", masked(str(program))
    for topology, lanes in (("h100:4x8", 256), ("v5e:4x8", 250), ("2xv5e:16x16", 4096), ("cpu:7", 100)):
        yield f"plan of {name} for {topology}", json.loads(shardinit.plan(program, topology, axis_size=lanes).to_json())
    if name in EXAMPLES:
        certificate = shardinit.plan(program, "cpu:8", axis_size=64).certify()
        yield f"certificate of {name}", masked(re.sub(r"\d+\.\d\d s", "~ s", str(certificate)))


def values(states: dict[Any, list[Any]]) -> dict[str, Any]:
    """Digests of states by axis, and of the key that is left."""
    import brainstate

    found: dict[str, Any] = {str(axis): [digest(s.value) for s in group] for axis, group in states.items()}
    return {**found, "key": digest(brainstate.random.DEFAULT.value)}


def errors() -> Iterator[tuple[str, Any]]:
    """Messages of what is refused."""
    from tests.modules import Draws, Nested

    program = shardinit.discover(Nested())
    weight = shardinit.StateSpec(("layers", "0", "w"), "ParamState", (shardinit.LeafSpec((1000, 7), "float32", 4),))
    calls: dict[str, Any] = {
        "axis_size": lambda: shardinit.shard_new_states(Nested(), axis_size="8"),
        "no lanes": lambda: shardinit.shard_new_states(Nested(), axis_size=0),
        "a class": lambda: shardinit.discover(Nested),
        "no module": lambda: shardinit.discover(3),
        "topology": lambda: shardinit.plan(program, "h10:4x8", axis_size=8),
        "slice": lambda: shardinit.plan(program, "v5e:3x8", axis_size=8),
        "strategy": lambda: shardinit.plan(program, "cpu:8", axis_size=8, strategy="pmap2"),
        "divides": lambda: shardinit.plan(program, "cpu:8", axis_size=12, remainder="error"),
        "budget": lambda: shardinit.plan([weight], "cpu:8", axis_size=800, memory_budget="1MiB"),
        "budget text": lambda: shardinit.plan([weight], "cpu:8", axis_size=8, memory_budget="much"),
        "rule": lambda: shardinit.plan([weight], "cpu:8", axis_size=8, rules=[("*/v", "replicate")]),
        "rule axis": lambda: shardinit.plan([weight], "cpu:8", axis_size=8, rules=[("*", ("lanes", None, "model"))]),
        "rule placement": lambda: shardinit.plan([weight], "cpu:8", axis_size=8, rules=[("*", "copy")]),
        "two axes": lambda: shardinit.shard_new_states(Draws(), axis_size=8, state_out_axes={0: "a", 1: ..., 2: ...}),
        "an axis": lambda: shardinit.shard_new_states(Draws(), axis_size=8, state_out_axes={5: ...}),
        "shared": lambda: shardinit.shard_new_states(Draws(), axis_size=8, state_out_axes={None: ...}),
        "json": lambda: shardinit.InitPlan.from_json("{}"),
        "execute": lambda: shardinit.execute(None),
        "compile": lambda: shardinit.compile(None, None),
        "certify": lambda: shardinit.certify(shardinit.plan([weight], "cpu:8", axis_size=8)),
    }
    for name, call in calls.items():
        try:
            call()
        except Exception as error:
            yield f"error: {name}", [type(error).__name__, *masked(str(error))]
        else:
            yield f"error: {name}", ["nothing is raised"]


def commands(folder: Path) -> Iterator[tuple[str, Any]]:
    """Exit code and output of commands."""
    example = "examples/ei_network.py:build"
    both = [str(folder / "a.json"), str(folder / "b.json")]
    lines = {
        "run": ["run", example, "--axis-size", "8", "--devices", "4"],
        "plan": ["plan", example, "--axis-size", "8", "--topology", "h100:2x4"],
        "plan a": ["plan", example, "--axis-size", "12", "--topology", "cpu:8", "--json"],
        "plan b": ["plan", example, "--axis-size", "16", "--topology", "cpu:8", "--json"],
        "diff": ["plan", "--diff", *both],
        "no target": ["run", "examples/none.py:build", "--axis-size", "8"],
        "refused": ["plan", example, "--axis-size", "8", "--topology", "cpu:4", "--memory-budget", "1KiB"],
        "bad kwargs": ["plan", example, "--axis-size", "8", "--topology", "cpu:4", "--kwargs", "{"],
        "launch": ["launch", "--processes", "2", "--devices-per-process", "2", example, "--axis-size", "8"],
        "doctor": ["doctor", "--json"],
        "version": ["--version"],
        "nothing": [],
    }
    for name, arguments in lines.items():
        done = subprocess.run(
            [sys.executable, "-m", "shardinit.cli.main", *arguments],
            capture_output=True,
            text=True,
            timeout=300,
        )
        if name in ("plan a", "plan b"):
            Path(both[name == "plan b"]).write_text(done.stdout)
            yield f"command: {name}", [done.returncode, json.loads(done.stdout)]
        else:
            keeps_text = name not in ("launch", "doctor", "version")  # order of lines, this machine
            yield f"command: {name}", [done.returncode, masked(done.stdout) if keeps_text else []]


def record() -> dict[str, Any]:
    """Everything, by name."""
    import tempfile

    shardinit.emulate_cpu(8)
    found: dict[str, Any] = {}
    for name, make in factories().items():
        found |= dict(initialized(name, make))
        print(name, flush=True)
    found |= dict(errors())
    with tempfile.TemporaryDirectory() as folder:
        found |= dict(commands(Path(folder)))
    return found


def differences(before: Any, after: Any, place: str = "") -> Iterator[str]:
    """Say what differs; what a later record has more than an earlier one is no difference."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in before:
            if name in ("version", "digests"):
                continue
            yield from differences(before[name], after.get(name, "(not there)"), f"{place}/{name}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, pair in enumerate(zip(before, after, strict=True)):
            yield from differences(*pair, f"{place}/{number}")
    elif before != after:
        yield f"{place}:\n  - {str(before)[:600]}\n  + {str(after)[:600]}"


def main(arguments: list[str]) -> int:
    """Run as a script."""
    if arguments[:1] == ["record"] and len(arguments) == 2:
        Path(arguments[1]).write_text(json.dumps(record(), indent=1, sort_keys=True))
        return 0
    if arguments[:1] == ["compare"] and len(arguments) == 3:
        found = list(differences(*(json.loads(Path(a).read_text()) for a in arguments[1:])))
        print("\n".join([*found, f"{len(found)} differences"]))
        return min(len(found), 1)
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
