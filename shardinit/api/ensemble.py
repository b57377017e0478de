"""Ensembles over a mesh: the whole way from a module to distributed states."""

import time
from collections.abc import Mapping
from typing import Any

from jax.sharding import Mesh

from shardinit.api.compile import compile
from shardinit.api.execute import InitResult, run
from shardinit.api.plan import plan
from shardinit.backend.private_jax import eval_trace, trace_ctx
from shardinit.errors import ArgumentError, ArgumentTypeError
from shardinit.executor.produce import Progress
from shardinit.frontends.brainstate.discovery import discover
from shardinit.spec.options import AskedStrategy, Numerics, Remainder, Rewritten, check_axis_size
from shardinit.spec.topology import Topology
from shardinit.wording import kind_of


def shard_new_states(
    module: Any,
    init_kwargs: Mapping[str, Any] | None = None,
    *,
    axis_size: int,
    mesh: Mesh | None = None,
    state_tag: str | None = None,
    state_out_axes: Any = None,
    memory_budget: int | str | None = None,
    rules: Any = (),
    strategy: AskedStrategy = "auto",
    remainder: Remainder = "factor",
    numerics: Numerics = "exact",
    rewritten: Rewritten = "batch",
    progress: bool | Progress = False,
) -> InitResult:
    """Initialize an ensemble of ``axis_size`` lanes, straight into arrays distributed over a mesh.

    Parameters
    ----------
    module, init_kwargs, state_tag, state_out_axes, numerics
        As for ``vmap2_new_states``.
    axis_size
        Number of lanes.
    mesh
        A mesh to use as it is; its axis ``lanes`` (or the first that divides the lanes) splits the
        lanes. None makes one of all devices.
    memory_budget, rules, strategy, remainder
        As for ``plan``.
    rewritten
        What becomes of a state that existed before and that init writes: ``batch`` batches it like a new one, and it
        is in ``states``; ``error`` does what ``vmap2_new_states`` does.
    progress
        True draws a progress bar on a terminal; a function is called with pieces done and their total.

    Returns
    -------
    InitResult
        With ``states``, ``plan``, ``receipt``, ``mesh`` and ``rerun``.

    Raises
    ------
    ValueError, TypeError
        As for ``vmap2_new_states``; ``PlanError`` if the lanes do not divide as the strategy needs, or a rule
        does not fit; ``MemoryBudgetError`` if nothing fits the budget.

    Examples
    --------
    >>> import brainstate, shardinit
    >>> class Neurons(brainstate.nn.Module):
    ...     def init_state(self):
    ...         self.v = brainstate.ShortTermState(brainstate.random.normal(size=(100,)))
    >>> neurons = Neurons()
    >>> result = shardinit.shard_new_states(neurons, axis_size=16)
    >>> neurons.v.value.shape, result.receipt.states
    ((16, 100), 1)
    """
    axis_size = check_axis_size(axis_size)
    if mesh is not None and not isinstance(mesh, Mesh):
        raise ArgumentTypeError(f"mesh is {kind_of(mesh)}. Pass a jax.sharding.Mesh, or None for all devices.")
    if trace_ctx.trace is not eval_trace:
        raise ArgumentError(
            "shard_new_states makes arrays on devices, so it cannot run inside jit or another transform. "
            "Call it outside, or use vmap2_new_states, which inlines."
        )
    program = discover(module, init_kwargs, state_tag=state_tag, state_out_axes=state_out_axes, rewritten=rewritten)
    started = time.perf_counter()
    topology = Topology.local() if mesh is None else Topology.from_mesh(mesh)
    planned = plan(
        program,
        topology,
        axis_size=axis_size,
        memory_budget=memory_budget,
        rules=rules,
        strategy=strategy,
        remainder=remainder,
        numerics=numerics,
    )
    seconds = time.perf_counter() - started
    if progress is True:
        from shardinit.report.progress import progress_bar

        with progress_bar() as update:
            return run(compile(program, planned, mesh), progress=update, plan_seconds=seconds)
    return run(compile(program, planned, mesh), progress=progress or None, plan_seconds=seconds)
