"""The private names of JAX that shardinit depends on, all of them, in one place.

Checked against jax 0.10.0 to 0.10.2. ``tests/test_private_names.py`` fails when one of them moves.

- ``Trace``, ``Tracer``, ``set_current_trace``, ``trace_ctx``, ``eval_trace``: a trace of our own
  (``discover/trace.py``).
- ``extend_axis_env_nd``: names a mapped axis during the trace, for collectives.
- ``get_concrete_mesh``, ``thread_resources``: the ambient mesh, set by either of JAX's two ways.
- ``backends_are_initialized``: whether device settings still have an effect.
- ``distributed_state``: the client of the coordination service, for its key-value store and barriers.
"""

from jax._src.core import Trace, Tracer, eval_trace, extend_axis_env_nd, set_current_trace, trace_ctx
from jax._src.distributed import global_state as distributed_state
from jax._src.mesh import get_concrete_mesh, thread_resources
from jax._src.xla_bridge import backends_are_initialized

__all__ = [
    "Trace",
    "Tracer",
    "backends_are_initialized",
    "distributed_state",
    "eval_trace",
    "extend_axis_env_nd",
    "get_concrete_mesh",
    "set_current_trace",
    "thread_resources",
    "trace_ctx",
]
