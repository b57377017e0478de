"""The private names of JAX that shardinit depends on, all of them, in one place.

Checked against jax 0.10.0 to 0.10.2. ``tests/test_private_names.py`` fails when one of them moves.

- ``Trace``, ``Tracer``, ``set_current_trace``, ``trace_ctx``, ``eval_trace``: a trace of our own
  (``discover/trace.py``).
- ``extend_axis_env_nd``: names a mapped axis during the trace, for collectives.
- ``get_concrete_mesh``, ``thread_resources``: the ambient mesh, set by either of JAX's two ways.
- ``UNSPECIFIED``: the sharding of a ``jit`` that asks for none, where init asked for one.
- ``backends_are_initialized``: whether device settings still have an effect.
- ``distributed_state``: the client of the coordination service, for its key-value store and barriers.
- ``settings``, ``entered``: JAX's configuration as it is at a line of user code, and going back to it. Would be
  replaced by a public ``trace_context`` that can be entered again.
- ``configuration``: all that decides what the same equations compile to. Would be replaced by a public key of
  JAX's own cache of executables.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from jax._src import config as _config
from jax._src.compiler import get_compile_options
from jax._src.core import Trace, Tracer, eval_trace, extend_axis_env_nd, set_current_trace, trace_ctx
from jax._src.distributed import global_state as distributed_state
from jax._src.mesh import get_concrete_mesh, thread_resources
from jax._src.sharding_impls import UNSPECIFIED
from jax._src.xla_bridge import backends_are_initialized

__all__ = [
    "UNSPECIFIED",
    "Trace",
    "Tracer",
    "backends_are_initialized",
    "configuration",
    "distributed_state",
    "entered",
    "eval_trace",
    "extend_axis_env_nd",
    "get_concrete_mesh",
    "set_current_trace",
    "settings",
    "settings_by_name",
    "thread_resources",
    "trace_ctx",
]

# Not what is computed but where, or by whom: the plan says where, and Python has run already.
_PLACES = frozenset(
    {"jax_default_device", "jax_disable_jit", "jax_no_execution", "check_vma", "jax_check_tracer_leaks"}
)


def _settings() -> dict[str, Any]:
    """Every setting that JAX itself makes part of its traces, but for ``_PLACES``; named by JAX since 0.10.2."""
    try:
        traced = set(_config.trace_context_names())
    except (AttributeError, NotImplementedError):
        traced = set(_config.config_states)
    named = {name: state for name, state in _config.config_states.items() if name in traced - _PLACES}
    contexts = (_config.compute_on_context_manager, _config.xla_metadata_context_manager)
    return named | dict(zip(("compute_on", "xla_metadata"), contexts, strict=True))


_SETTINGS = _settings()
Settings = tuple[Any, ...]


def settings() -> Settings:
    """Read the settings of this thread, in the order of ``_SETTINGS``."""
    return tuple(setting.value for setting in _SETTINGS.values())


def settings_by_name(values: Settings) -> dict[str, Any]:
    """Name the values that ``settings`` read."""
    return dict(zip(_SETTINGS, values, strict=True))


@contextlib.contextmanager
def entered(values: Settings) -> Iterator[None]:
    """Have the settings that were read before, inside."""
    with contextlib.ExitStack() as stack:
        for setting, value in zip(_SETTINGS.values(), values, strict=True):
            if setting.value is not value and setting.value != value:
                stack.enter_context(setting(value) if isinstance(setting, _config.State) else _swapped(setting, value))
        yield


@contextlib.contextmanager
def _swapped(setting: Any, value: Any) -> Iterator[None]:
    before = setting.swap_local(value)
    try:
        yield
    finally:
        setting.set_local(before)


def configuration() -> tuple[Any, ...]:
    """Everything of JAX's configuration in this thread, and the compiler options that come of it, as a key."""
    values = tuple((name, repr(holder.value)) for name, holder in sorted(_config.config._value_holders.items()))
    options = get_compile_options(num_replicas=1, num_partitions=1).SerializeAsString()
    return (_config.trace_context(), values, options, os.environ.get("XLA_FLAGS"), os.environ.get("LIBTPU_INIT_ARGS"))
