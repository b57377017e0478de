"""Execution: arrays are produced, then committed to the module, then a receipt is written."""

import time
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from brainstate import State
from brainstate.random import RandomState
from jax.sharding import Mesh, NamedSharding

from shardinit.backend.ambient import no_ambient_mesh
from shardinit.backend.exchange import agree, is_shared, processes_of
from shardinit.backend.private_jax import entered
from shardinit.backend.threads import one_at_a_time
from shardinit.compiler.compile import CompiledInit
from shardinit.errors import ArgumentTypeError
from shardinit.executor.produce import Progress, produce
from shardinit.executor.receipt import receipt_of, shared_digests
from shardinit.lane.digest import value_digest
from shardinit.lane.key_rule import Split
from shardinit.spec.options import check_seed
from shardinit.spec.plan import InitPlan
from shardinit.spec.receipt import Receipt, StageSeconds
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
        return run(self.compiled, key=key, again=True)

    def __repr__(self) -> str:
        states = counted(self.receipt.states, "state")
        return f"InitResult({states}, axis_size={self.plan.axis_size}, mesh={self.plan.mesh_axes})"

    def __str__(self) -> str:
        from shardinit.report.receipt import result_text
        from shardinit.report.terminal import for_terminal

        return for_terminal(result_text(self.plan, self.receipt))


def execute(compiled: CompiledInit, *, key: Any = None, progress: Progress | None = None) -> InitResult:
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

    Raises
    ------
    DisagreementError, JoinError
        If the mesh is that of several processes, and their random states or a state that all lanes share
        differ, or one does not come.
    """
    if not isinstance(compiled, CompiledInit):
        raise ArgumentTypeError(f"execute got {kind_of(compiled)}. Pass what compile(program, plan) returns.")
    return run(compiled, key=key, progress=progress)


@one_at_a_time
def run(
    compiled: CompiledInit,
    *,
    key: Any = None,
    progress: Progress | None = None,
    plan_seconds: float = 0.0,
    again: bool = False,
) -> InitResult:
    """Produce, commit, and write the receipt.

    ``again`` is whether the module was written before by the same ``compiled``; ``plan_seconds`` is for the receipt.
    """
    if progress is not None and not callable(progress):
        raise ArgumentTypeError(
            f"progress={progress!r} is {kind_of(progress)}. Pass a function of pieces done and their total."
        )
    started = time.perf_counter()
    traced = compiled.traced
    if traced is None:
        raise ArgumentTypeError("execute got what was compiled for no module. Pass what shardinit.compile returns.")
    program, sink, rule = compiled.program, traced.sink, Split(compiled.plan.axis_size)
    keys = sink.keys() if key is None else _keys_from(key, len(program.keys))
    ranks = () if compiled.mesh is None else processes_of(compiled.mesh.devices.flat)
    if is_shared(ranks):
        digests = {f"random state {i} (its key)": value_digest(k)[:16] for i, k in enumerate(keys)}
        agree("random state", digests, ranks)
    with no_ambient_mesh(), entered(program.settings), jax.disable_jit(False):
        made = produce(compiled, keys, progress)
        made = replace(made, values=[_on_mesh(value, compiled.mesh) for value in made.values])
        next_keys = [rule.key_after(k) for k in keys]
        if is_shared(ranks):
            agree("shared states", shared_digests(program, made.values) | made.answers, ranks)
    sink.commit(made.values, next_keys, again=again)
    seconds = StageSeconds(
        discover=0.0 if again else traced.seconds,
        plan=0.0 if again else plan_seconds,
        compile=made.compile_seconds + (0.0 if again else compiled.seconds),
        execute=time.perf_counter() - started - made.compile_seconds,
    )
    receipt = receipt_of(compiled, made, seconds, traced.notes, again=again)
    return InitResult(sink.states_by_axis(), receipt, compiled)


def _keys_from(key: Any, count: int) -> list[jax.Array]:
    """Keys of random states that start from a seed or a key; each but the first folds in its number."""
    if isinstance(key, (int, np.integer)):
        key = int(key)
        check_seed(key, "key")
    try:
        base = RandomState(key).value
    except (TypeError, ValueError) as error:
        raise ArgumentTypeError(
            f"key={key!r} is {kind_of(key)}, from which no random state starts. Pass an int seed or jax.random.key(0)."
        ) from error
    return [base if i == 0 else jax.random.fold_in(base, i) for i in range(count)]


def _on_mesh(value: Any, mesh: Mesh | None) -> Any:
    """Let an array name the caller's mesh, which differs from the compiled one in axis types only."""
    sharding = getattr(value, "sharding", None)
    if mesh is None or not isinstance(sharding, NamedSharding) or sharding.mesh == mesh:
        return value
    renamed = NamedSharding(mesh, sharding.spec)
    if sharding.is_fully_addressable:
        return jax.device_put(value, renamed)
    return jax.make_array_from_single_device_arrays(value.shape, renamed, [s.data for s in value.addressable_shards])
