"""Compiling, for users: arguments checked, the target kept with what is compiled for it."""

from dataclasses import replace

from jax.sharding import Mesh

from shardinit.compiler import compile as compiler
from shardinit.compiler.compile import CompiledInit
from shardinit.errors import ArgumentTypeError
from shardinit.lane.program import Traced
from shardinit.spec.plan import InitPlan
from shardinit.wording import kind_of


def compile(program: Traced, plan: InitPlan, mesh: Mesh | None = None) -> CompiledInit:
    """Compile each unique piece of a lane program once, in threads.

    Returns at once: executables are futures, so that earlier ones run while later ones compile.
    ``CompiledInit.wait`` waits for all.

    Parameters
    ----------
    program
        From ``discover``.
    plan
        From ``plan``, for the program.
    mesh
        A mesh with the plan's axes; None makes it from this machine's devices.

    Raises
    ------
    PlanError
        If the plan is of another program, the mesh is not the plan's, or there are fewer devices.
    DisagreementError, JoinError
        If the mesh is that of several processes, and they would not compile the same, or one does not come.

    Examples
    --------
    >>> import brainstate, shardinit
    >>> class Neurons(brainstate.nn.Module):
    ...     def init_state(self):
    ...         self.v = brainstate.ShortTermState(brainstate.random.normal(size=(100,)))
    >>> traced = shardinit.discover(Neurons())
    >>> planned = shardinit.plan(traced, shardinit.Topology("cpu", 1), axis_size=4)
    >>> len(shardinit.compile(traced, planned).wait().programs)
    1
    """
    if not isinstance(program, Traced) or not isinstance(plan, InitPlan):
        raise ArgumentTypeError(
            f"compile(program, plan) got {kind_of(program)} and {kind_of(plan)}. Pass what discover and plan return."
        )
    return replace(compiler.compile(program.program, plan, mesh), traced=program)
