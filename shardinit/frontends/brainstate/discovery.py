"""Discovery: from a module to a lane program, traced once, abstractly."""

import inspect
import types
from collections.abc import Mapping
from typing import Any

from shardinit.errors import ArgumentError, ArgumentTypeError
from shardinit.frontends.brainstate.axes import axis_filters
from shardinit.frontends.brainstate.trace_init import trace_init
from shardinit.lane.program import Traced
from shardinit.spec.options import Rewritten, check_axis_size, check_choice
from shardinit.wording import kind_of


def discover(
    module: Any,
    init_kwargs: Mapping[str, Any] | None = None,
    *,
    state_tag: str | None = None,
    state_out_axes: Any = None,
    axis_name: Any = None,
    axis_size: int | None = None,
    rewritten: Rewritten = "batch",
) -> Traced:
    """Trace ``module.init_all_states(**init_kwargs)`` for one lane, making no array.

    The init code runs once in Python. The module, the random states and every state that existed are
    as before when it returns; what init did to them is kept in the program, to be done by ``execute``.

    Parameters
    ----------
    module
        Any object with an ``init_all_states`` method that creates ``brainstate.State`` objects.
    init_kwargs
        Keyword arguments of ``init_all_states``.
    state_tag
        Tag given to every new state, before the filters see it.
    state_out_axes
        ``{axis: filter}`` or one filter (axis 0), as in ``brainstate.transform.vmap2_new_states``.
        Filters see the state's path in the module.
    axis_name
        Name of the mapped axis, for init code with collectives.
    axis_size
        Number of lanes, which collectives can see; the program is for this number alone then. Needed with
        ``axis_name``, and of no meaning without.
    rewritten
        What becomes of a state that existed before and that init writes: ``batch`` batches it like a new one;
        ``error`` keeps what is the same on every lane as it is, without lanes, and refuses anything else.

    Returns
    -------
    Traced
        One ``StateSpec`` per state (``specs``), the traced equations, and what writes the arrays back.

    Raises
    ------
    ArgumentError
        If there is an ``axis_name`` and no ``axis_size``.
    ArgumentTypeError
        If the module has no ``init_all_states`` or ``init_kwargs`` is not a mapping.
    AxisAssignmentError
        If two declared axes claim a state, or a leaf does not have its axis.
    LaneValueError
        If a state on axis None differs by lane.
    RewrittenStateError
        With ``rewritten="error"``, if init writes what differs by lane into a state that existed before.
    ConcreteValueError
        If init code needs the concrete value of what differs by lane.

    Examples
    --------
    >>> import brainstate, shardinit
    >>> class Neurons(brainstate.nn.Module):
    ...     def init_state(self):
    ...         self.v = brainstate.ShortTermState(brainstate.random.normal(size=(100,)))
    >>> shardinit.discover(Neurons()).specs[0].leaves[0].shape
    (100,)
    """
    init = getattr(module, "init_all_states", None)
    if not callable(init):
        raise ArgumentTypeError(
            f"module is {kind_of(module)} without an init_all_states method. "
            "Pass a brainstate.nn.Module, or an object whose init_all_states creates the states."
        )
    if isinstance(module, type) and isinstance(inspect.getattr_static(module, "init_all_states"), types.FunctionType):
        raise ArgumentTypeError(
            f"module is the class {module.__name__}, not an instance. Pass an instance, such as {module.__name__}()."
        )
    kwargs = {} if init_kwargs is None else init_kwargs
    if not isinstance(kwargs, Mapping):
        raise ArgumentTypeError(
            f"init_kwargs is {init_kwargs!r} ({type(init_kwargs).__name__}). "
            "Pass a dictionary of the keyword arguments of init_all_states, such as {'size': 10}."
        )
    if odd := [key for key in kwargs if not isinstance(key, str)]:
        raise ArgumentTypeError(
            f"init_kwargs has the key {odd[0]!r}, which is {kind_of(odd[0])}. Its keys are names of keyword arguments, "
            "such as {'size': 10}."
        )
    check_choice("rewritten", rewritten, Rewritten)
    axis_size = _traced_axis_size(axis_name, axis_size)
    filters = axis_filters(state_out_axes)
    roots = {(): module, ("init_kwargs",): kwargs}
    return trace_init(
        lambda: init(**kwargs),
        roots,
        filters,
        state_tag=state_tag,
        axis_name=axis_name,
        axis_size=axis_size,
        rewritten=rewritten,
    )


def _traced_axis_size(axis_name: Any, axis_size: Any) -> int | None:
    """Number of lanes that init code can see: by the name of the axis, or not at all."""
    if axis_name is None:
        return None
    if axis_size is None:
        raise ArgumentError(
            f"axis_name={axis_name!r} needs axis_size: a collective over it, such as jax.lax.psum(1, {axis_name!r}), "
            "sees the number of lanes. Pass the one to plan with, such as axis_size=8."
        )
    return check_axis_size(axis_size)
