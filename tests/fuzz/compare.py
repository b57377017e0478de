"""Run a program by eager brainstate and by shardinit, and say where they differ."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import brainstate
import jax
import numpy as np

import shardinit
from shardinit.lane.equations import primitive_names
from tests.conftest import mesh_of
from tests.fuzz.program import Program
from tests.reference import raw

SEED = 7
SAID = re.compile(r"last bits?\b.*: (?P<names>[^:]*)$")
CLOSE = {"float16": 2e-2, "bfloat16": 1e-1, "float32": 2e-4, "float64": 1e-10, "complex64": 2e-4, "complex128": 1e-10}


@dataclass(frozen=True, slots=True)
class Target:
    """Where and how a program is initialized; without a strategy by a drop-in function."""

    mesh: tuple[int, ...] | None
    strategy: str
    remainder: str = "factor"

    def initialize(self, module: Any, arguments: dict[str, Any]) -> Any:
        if self.strategy == "vmap2_new_states":
            return shardinit.vmap2_new_states(module, {}, **arguments)
        if self.strategy == "pmap2_new_states":
            return shardinit.pmap2_new_states(module, {}, **arguments)
        mesh = None if self.mesh is None else mesh_of(*self.mesh)
        options = {"strategy": self.strategy, "remainder": self.remainder, "mesh": mesh}
        return shardinit.shard_new_states(module, **options, **arguments)


ONE = (Target((1,), "vmap2_new_states"), Target((1,), "auto"))
MANY = (
    Target((8, 1), "pmap2_new_states"),
    Target((8, 1), "pmap"),
    *(
        Target(shape, strategy)
        for shape in ((8, 1), (4, 2), (2, 4))
        for strategy in ("auto", "vmap", "shard_map", "gspmd")
    ),
    *(
        Target(shape, "auto", remainder)
        for shape in ((8, 1), (4, 2), (2, 4))
        for remainder in ("replicate", "pad", "error")
    ),
    Target(None, "auto"),
)


@dataclass(frozen=True, slots=True)
class Left:
    """What an initialization leaves, as plain data."""

    states: dict[Any, list[tuple]]
    attributes: dict[str, tuple]
    keys: dict[str, tuple]
    notes: tuple[str, ...] = ()
    memory: str = ""
    primitives: frozenset[str] = frozenset()


def names_of(module: Any) -> dict[int, str]:
    """Path of every state, as receipts write it."""
    return {id(state): ".".join(map(str, path)) for path, state in brainstate.graph.states(module).items()}


def look(module: Any, result: Any) -> Left:
    """Take down everything that is compared."""
    names = names_of(module)
    found = getattr(result, "states", result)
    states = {
        axis: [
            (names.get(id(s), ""), type(s), s.tag, s.stack_level, jax.tree.structure(s.value), raw(s.value))
            for s in group
        ]
        for axis, group in found.items()
    }
    others = {k: v for k, v in vars(module).items() if isinstance(v, (jax.Array, np.ndarray))}
    generators = {"DEFAULT": brainstate.random.DEFAULT} | {
        k: v for k, v in vars(module).items() if isinstance(v, brainstate.random.RandomState)
    }
    before = {k: v for k, v in vars(module).items() if k == "before"}
    return Left(
        states,
        {k: raw(v) for k, v in others.items()} | {k: raw(v.value) for k, v in before.items()},
        {k: raw(v.value) for k, v in generators.items()},
        *_receipt(result),
    )


def _receipt(result: Any) -> tuple:
    if not hasattr(result, "receipt"):
        return ()
    held: dict[Any, int] = {}
    for group in result.states.values():
        for array in (a for s in group for a in jax.tree.leaves(s.value) if isinstance(a, jax.Array)):
            for shard in array.addressable_shards:
                size = int(np.prod(shard.data.shape)) * array.dtype.itemsize
                held[shard.device] = held.get(shard.device, 0) + size
    planned = result.plan.bytes_per_device
    over = "" if max(held.values(), default=0) <= planned else f"a device holds {max(held.values())}, {planned=}"
    program = result.compiled.program
    work = program.work(on_mesh=False, whole_lanes=False)
    primitives = frozenset().union(*(primitive_names(e.primitive, e.params) for e in work.equations))
    return result.receipt.notes, over, primitives


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
    except (shardinit.PlanError, shardinit.MemoryBudgetError):  # the target does not fit the lanes: documented
        return [], None
    except Exception as error:
        return [f"{type(error).__name__}: {error}"[:2000]], None
    said = _said(found.notes if found.notes or target.strategy[-6:] != "states" else _notes(program, target))
    out = [found.memory] if found.memory else []
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


def _notes(program: Program, target: Target) -> tuple[str, ...]:
    """Notes of the same initialization, where a drop-in returns no receipt."""
    if target.mesh == (1,):
        return ()
    return run(program, Target((min(8, program.axis_size),), "pmap").initialize).notes


def _said(notes: tuple[str, ...]) -> set[str]:
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
            where = np.flatnonzero(np.ravel(a != b))[:3]
            out.append(f"{a_type[1]}{list(a.shape)} {np.ravel(a)[where]}, eager {np.ravel(b)[where]}")
    return out


def _is_close(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether it is a matter of last bits; of integers and booleans after such sums anything can be."""
    if a.dtype.name not in CLOSE:
        return True
    wide = np.complex128 if a.dtype.kind == "c" else np.float64
    a, b, limit = a.astype(wide), b.astype(wide), CLOSE[a.dtype.name]
    scale = np.max(np.abs(b), where=np.isfinite(b), initial=1.0)
    return bool(np.allclose(a, b, rtol=limit, atol=limit * scale, equal_nan=True))
