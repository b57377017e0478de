"""Execution: run what was compiled, then write it back, and say what happened."""

import functools
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import jax
import numpy as np
from brainstate import State
from brainstate.random import RandomState
from jax.sharding import Mesh, NamedSharding

from shardinit.ambient import no_ambient_mesh
from shardinit.compile.compiler import CompiledInit
from shardinit.compile.keys import key_after
from shardinit.drawing import for_terminal
from shardinit.errors import ArgumentTypeError
from shardinit.exchange import agree, is_shared, processes_of
from shardinit.execute.memory import measured_peaks, untold_note
from shardinit.execute.receipt import Receipt
from shardinit.execute.run import Progress, run
from shardinit.execute.write_back import leaf_value, measured_bytes, states_by_axis, write_back
from shardinit.lane.digest import value_digest
from shardinit.lane.equations import Variable
from shardinit.plan.init_plan import InitPlan
from shardinit.private_jax import entered
from shardinit.seeds import check_seed
from shardinit.threads import one_at_a_time
from shardinit.wording import counted, kind_of


@dataclass(slots=True, eq=False, repr=False)
class InitResult:
    """An initialized ensemble.

    Attributes
    ----------
    states
        Axis to list of State, as ``brainstate.transform.vmap2_new_states`` returns it.
    receipt
        What happened.
    compiled
        What ``rerun`` runs again.
    """

    states: dict[int | None, list[State]]
    receipt: Receipt
    compiled: CompiledInit

    @property
    def plan(self) -> InitPlan:
        """The plan that was followed."""
        return self.compiled.plan

    @property
    def mesh(self) -> Mesh | None:
        """The mesh that the arrays are on; None on the default device."""
        return self.compiled.mesh

    def rerun(self, key: Any = None) -> "InitResult":
        """Initialize again, into the same State objects, without tracing or compiling.

        Parameters
        ----------
        key
            An int seed, 0 to 2**32 - 1, or a typed key, as if the random state had been seeded with it before; with
            several random states, each folds in its number. None: go on from where they are now.

        Returns
        -------
        InitResult
            With the same states, and a receipt of this run.

        Examples
        --------
        >>> import brainstate, shardinit
        >>> class Neurons(brainstate.nn.Module):
        ...     def init_state(self):
        ...         self.v = brainstate.ShortTermState(brainstate.random.normal(size=(3,)))
        >>> neurons = Neurons()
        >>> result = shardinit.shard_new_states(neurons, axis_size=4)
        >>> first = neurons.v.value
        >>> _ = result.rerun(key=1)
        >>> bool((neurons.v.value == first).any())
        False
        """
        return execute(self.compiled, key=key, again=True)

    def __repr__(self) -> str:
        states = counted(self.receipt.states, "state")
        return f"InitResult({states}, axis_size={self.plan.axis_size}, mesh={self.plan.mesh_axes})"

    def __str__(self) -> str:
        from shardinit.execute.text import result_text

        return for_terminal(result_text(self))


@one_at_a_time
def execute(
    compiled: CompiledInit,
    *,
    key: Any = None,
    progress: Progress | None = None,
    plan_seconds: float = 0.0,
    again: bool = False,
) -> InitResult:
    """Run a compiled initialization and write its arrays into the module's states.

    The module, its states and the random states change only once every array is there; on any
    failure before that they are as they were.

    Parameters
    ----------
    compiled
        From ``compile``.
    key
        Seed or key to start from instead of the random states' own.
    progress
        Called with pieces dispatched and their total.
    plan_seconds
        Time that planning took, for the receipt.
    again
        Whether the module was written before by the same ``compiled``.

    Raises
    ------
    DisagreementError, JoinError
        If the mesh is that of several processes, and their random states or a state that all lanes share
        differ, or one does not come.
    """
    if not isinstance(compiled, CompiledInit):
        raise ArgumentTypeError(f"execute got {kind_of(compiled)}. Pass what compile(program, plan) returns.")
    if progress is not None and not callable(progress):
        raise ArgumentTypeError(
            f"progress={progress!r} is {kind_of(progress)}. Pass a function of pieces done and their total."
        )
    started = time.perf_counter()
    program, plan = compiled.program, compiled.plan
    keys = _base_keys(compiled, key)
    ranks = () if compiled.mesh is None else processes_of(compiled.mesh.devices.flat)
    if is_shared(ranks):
        digests = {f"random state {i} (its key)": value_digest(k)[:16] for i, k in enumerate(keys)}
        agree("random state", digests, ranks)
    with no_ambient_mesh(), entered(program.settings), jax.disable_jit(False):
        made = run(compiled, keys, progress)
        values = [_on_mesh(v, compiled.mesh) for v in made.values]
        next_keys = [key_after(k, plan.axis_size) for k in keys]
        if is_shared(ranks):
            agree("shared states", _shared_values(compiled, values) | made.answers, ranks)
    versions = dict(_versions())
    write_back(program, values, next_keys, again=again)
    in_states = _state_values(compiled, values)
    strategies = Counter(p.strategy for p in compiled.programs)
    receipt = Receipt(
        axis_size=plan.axis_size,
        states=sum(o.state is not None for o in program.outputs),
        arrays=sum(len(o.atoms) for o in program.outputs if o.state is not None),
        programs=len(compiled.programs) + len(compiled.keys),
        cached_programs=len(compiled.programs) + len(compiled.keys) if again else compiled.cached,
        discover_seconds=0.0 if again else program.seconds,
        plan_seconds=0.0 if again else plan_seconds,
        compile_seconds=made.compile_seconds + (0.0 if again else compiled.seconds),
        execute_seconds=time.perf_counter() - started - made.compile_seconds,
        planned_bytes=plan.bytes_per_device,
        measured_bytes=measured_bytes(in_states),
        peak_bytes=measured_peaks(compiled.mesh),
        planned_peak_bytes=plan.peak_bytes,
        constant_bytes=plan.constant_bytes,
        numerics=plan.numerics,
        strategies=dict(sorted(strategies.items())),
        notes=program.notes + compiled.notes + untold_note(compiled.programs, plan),
        versions=versions,
    )
    return InitResult(states_by_axis(program), receipt, compiled)


@functools.cache
def _versions() -> tuple[tuple[str, str], ...]:
    return tuple((name, version(name)) for name in ("shardinit", "jax", "jaxlib", "brainstate"))


def _base_keys(compiled: CompiledInit, key: Any) -> list[jax.Array]:
    states = [r.state for r in compiled.program.random_inputs]
    if key is None:
        return [s.value for s in states]
    if isinstance(key, (int, np.integer)):
        key = int(key)
        check_seed(key, "key")
    try:
        base = RandomState(key).value
    except (TypeError, ValueError) as error:
        raise ArgumentTypeError(
            f"key={key!r} is {kind_of(key)}, from which no random state starts. Pass an int seed or jax.random.key(0)."
        ) from error
    return [base if i == 0 else jax.random.fold_in(base, i) for i in range(len(states))]


def _on_mesh(value: Any, mesh: Mesh | None) -> Any:
    """Let an array name the caller's mesh, which differs from the compiled one in axis types only."""
    sharding = getattr(value, "sharding", None)
    if mesh is None or not isinstance(sharding, NamedSharding) or sharding.mesh == mesh:
        return value
    renamed = NamedSharding(mesh, sharding.spec)
    if sharding.is_fully_addressable:
        return jax.device_put(value, renamed)
    return jax.make_array_from_single_device_arrays(value.shape, renamed, [s.data for s in value.addressable_shards])


def _shared_values(compiled: CompiledInit, values: Sequence[Any]) -> dict[str, str]:
    """Digest of each state that all lanes share, and so all processes; by shard, where it is split."""
    left = iter(values)
    found: dict[str, str] = {}
    for at, output in enumerate(compiled.program.outputs):
        made = [next(left) for _ in output.atoms]
        if output.spec.out_axis is None:
            for number, (atom, value) in enumerate(zip(output.atoms, made, strict=True)):
                leaf = atom.value if value is None and not isinstance(atom, Variable) else value
                name = f"{output.spec.name}{'' if output.spec.path else f' {at}'}, array {number}"
                if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
                    for shard in leaf.addressable_shards:
                        place = ", ".join(f"{s.start or 0}:{'' if s.stop is None else s.stop}" for s in shard.index)
                        found[f"{name}[{place}]"] = value_digest(shard.data)[:16]
                else:
                    found[name] = value_digest(leaf)[:16]
    return found


def _state_values(compiled: CompiledInit, values: Sequence[Any]) -> list[Any]:
    """Values of the leaves of states, also of those that nothing had to be made for."""
    left = iter(values)
    pairs = [(o, atom, next(left)) for o in compiled.program.outputs for atom in o.atoms]
    return [leaf_value(atom, value) for output, atom, value in pairs if output.state is not None]
