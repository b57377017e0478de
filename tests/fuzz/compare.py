"""Run a program by eager brainstate and by shardinit, and say where they differ."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

import brainstate
import jax
import numpy as np

import shardinit
from shardinit.api import drop_ins
from shardinit.lane.equations import primitive_names
from tests.conftest import mesh_of
from tests.fuzz.program import Program
from tests.reference import raw

SEED = 7
SAID = re.compile(r"(?:last bits?\b|rounds).*?: (?P<names>[^:]*?)(?: and \d+ more)?(?:\. [A-Z].*)?$")
ULPS = 2  # how far a sum that the receipt names may be off, in units of the largest element's last place


@dataclass(frozen=True, slots=True)
class Target:
    """Where and how a program is initialized; without a strategy by a drop-in function."""

    mesh: tuple[int, ...] | None
    strategy: str
    remainder: str = "factor"

    def initialize(self, module: Any, arguments: dict[str, Any]) -> Any:
        if self.strategy.endswith("new_states"):
            with mock.patch.object(drop_ins, "_states_of", lambda result: result):
                return getattr(shardinit, self.strategy)(module, {}, **arguments)
        mesh = None if self.mesh is None else mesh_of(*self.mesh)
        options = {"strategy": self.strategy, "remainder": self.remainder, "mesh": mesh}
        return shardinit.shard_new_states(module, **options, **arguments)


SHAPES = ((8, 1), (4, 2), (2, 4))
ONE = (Target((1,), "vmap2_new_states"), Target((1,), "auto"))
MANY = (
    Target((8, 1), "pmap2_new_states"),
    Target((8, 1), "pmap"),
    *(Target(s, strategy) for s in SHAPES for strategy in ("auto", "vmap", "shard_map", "gspmd")),
    *(Target(s, "auto", remainder) for s in SHAPES for remainder in ("replicate", "pad", "error")),
    *(Target((8, 1), strategy, "pad") for strategy in ("shard_map", "gspmd")),
    Target(None, "auto"),
)


@dataclass(frozen=True, slots=True)
class Left:
    """What an initialization leaves, as plain data."""

    states: dict[Any, list[tuple]]
    attributes: dict[str, list[tuple]]
    keys: dict[str, list[tuple]]
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    primitives: frozenset[str] = frozenset()


def look(module: Any, result: Any) -> Left:
    """Take down everything that is compared."""
    names = {id(state): ".".join(map(str, path)) for path, state in brainstate.graph.states(module).items()}
    states = {
        axis: [
            (names.get(id(s), ""), type(s).__name__, s.tag, s.stack_level, _tree(s.value), raw(s.value)) for s in group
        ]
        for axis, group in getattr(result, "states", result).items()
    }
    own = vars(module)
    arrays = {k: v for k, v in own.items() if isinstance(v, (jax.Array, np.ndarray))}
    generators = {"DEFAULT": brainstate.random.DEFAULT} | {
        k: v for k, v in own.items() if isinstance(v, brainstate.random.RandomState)
    }
    existed = {k: own[k].value for k in ("before",) if k in own}
    return Left(
        states,
        {k: raw(v) for k, v in (arrays | existed).items() if not isinstance(v, jax.core.Tracer)},
        {k: raw(v.value) for k, v in generators.items()},
        *_received(result, [k for k, v in arrays.items() if isinstance(v, jax.core.Tracer)]),
    )


def _tree(value: Any) -> str:
    """Structure of a value; classes of programs are made anew by each run."""
    return str(jax.tree.structure(value))


def _received(result: Any, tracers: list[str]) -> tuple:
    """What a plan and a receipt add: where a device holds more than planned, what is said, what was run."""
    if not hasattr(result, "receipt"):
        return ()
    faults = [f"attribute {name} is a tracer" for name in tracers]
    held: dict[Any, int] = {}
    for state, planned in zip(result.compiled.traced.objects, result.plan.states, strict=True):
        leaves = [] if state is None else jax.tree.leaves(state.value)
        for array, leaf in zip(leaves, planned.leaves, strict=False):
            for device, size in _bytes_of(array).items():
                held[device] = held.get(device, 0) + size
                if size > leaf.bytes_per_device:
                    faults.append(f"{planned.spec.name}: {size} B on {device}, planned {leaf.bytes_per_device}")
    if max(held.values(), default=0) > result.plan.bytes_per_device:
        faults.append(f"a device holds {max(held.values())} B, planned {result.plan.bytes_per_device}")
    if held != result.receipt.measured_bytes:
        faults.append(f"devices hold {held}, the receipt says {result.receipt.measured_bytes}")
    work = result.compiled.program.work(on_mesh=False, whole_lanes=False)
    primitives = frozenset().union(*(primitive_names(e.primitive, e.params) for e in work.equations))
    return tuple(faults), result.receipt.notes, primitives


def _bytes_of(array: Any) -> dict[str, int]:
    """Bytes by device, from the devices themselves."""
    held: dict[str, int] = {}
    for shard in array.addressable_shards if isinstance(array, jax.Array) else ():
        held[str(shard.device)] = held.get(str(shard.device), 0) + shard.data.size * array.dtype.itemsize
    return held


def run(program: Program, initialize: Callable[[Any, dict[str, Any]], Any]) -> Left:
    """Initialize a fresh module from the same seed."""
    names = program.run()
    with names["setting"]():
        brainstate.random.seed(SEED)
        module = names["Main"]()
        return look(module, initialize(module, names["arguments"]))


def eager(program: Program) -> Left:
    return run(program, lambda m, arguments: brainstate.transform.vmap2_new_states(m, {}, **arguments))


def differences(program: Program, expected: Left, target: Target) -> tuple[list[str], Left | None]:
    """Everything in which shardinit leaves something else than eager brainstate."""
    try:
        found = run(program, target.initialize)
    except Exception as error:
        if isinstance(error, shardinit.PlanError) and "axis_size=" in str(error):  # lanes that do not fit the target
            return [], None
        return [f"{type(error).__name__}: {error}"[:2000]], None
    said, out = named_in(found.notes), list(found.faults)
    if list(found.states) != list(expected.states):
        out.append(f"axes {list(found.states)}, eager {list(expected.states)}")
    for axis, group in expected.states.items():
        ours = found.states.get(axis, [])
        if len(ours) != len(group):
            out.append(f"axis {axis}: {len(ours)} states, eager {len(group)}")
        for mine, theirs in zip(ours, group, strict=False):
            out += [f"{theirs[0]}: {what}" for what in _state(mine, theirs, theirs[0] in said)]
    for what in ("attributes", "keys"):
        a, b = getattr(found, what), getattr(expected, what)
        out += [f"{what} {k}: {x}" for k in b for x in _leaves(a.get(k, []), b[k], False)]
    return out, found


def named_in(notes: tuple[str, ...]) -> set[str]:
    """Names of the states whose last bits may differ, as the receipt says."""
    return {name for note in notes for m in [SAID.search(note)] if m for name in m["names"].split(", ")}


def _state(mine: tuple, theirs: tuple, close: bool) -> list[str]:
    words = ("name", "class", "tag", "stack level", "tree")
    out = [f"{w} {a!r}, eager {b!r}" for w, a, b in zip(words, mine, theirs, strict=False) if a != b]
    return out + _leaves(mine[-1], theirs[-1], close)


def _leaves(mine: list, theirs: list, close: bool) -> list[str]:
    if len(mine) != len(theirs):
        return [f"{len(mine)} leaves, eager {len(theirs)}"]
    out = []
    for (a, *a_type), (b, *b_type) in zip(mine, theirs, strict=True):
        if a_type != b_type or a.shape != b.shape:
            out.append(f"{a_type} {a.shape}, eager {b_type} {b.shape}")
        elif a.tobytes() != b.tobytes() and not (close and _is_close(a, b)):
            where = np.flatnonzero(np.ravel(_bits(a) != _bits(b)))[:3]
            out.append(f"{a_type[1]}{list(a.shape)} {np.ravel(a)[where]}, eager {np.ravel(b)[where]}")
    return out


def _bits(array: np.ndarray) -> np.ndarray:
    return array.view(f"u{array.itemsize}") if array.itemsize in (1, 2, 4, 8) else array


def _is_close(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether it is a matter of last bits; of integers and booleans after such sums anything can be."""
    if a.dtype.kind in "iub":
        return True
    kind = jax.numpy.finfo(a.dtype)
    wide = np.complex128 if a.dtype.kind == "c" else np.float64
    a, b = a.astype(wide), b.astype(wide)
    scale = np.max(np.abs(b), where=np.isfinite(b), initial=float(kind.tiny))
    return bool(np.allclose(a, b, rtol=0.0, atol=float(kind.eps) * ULPS * scale, equal_nan=True))
