"""The private names of brainstate that shardinit depends on, all of them, in one place.

Checked against brainstate 0.5.0 to 0.6.0. ``tests/test_private_names.py`` fails when one of them moves. Of each: what
for, and what would replace it.

- ``TRACE_CONTEXT``: how many state traces are open, so that new states get the level of the caller. A public level.
- ``NonBatchState``: documented at top level, exported nowhere. Its export.
- ``INIT_NO_BATCHING``: the tag by which ``nn.Delay`` asks for axis None. A documented tag.
- ``StateJaxTracer``: the trace that a state belongs to. ``State.restore_value`` that takes a state out of its trace.
- ``STATE_INTERNALS``: fields of every ``State`` that are not part of what it holds: where it was made, and which hooks
  watch it. A public copy of a state.
- ``State._value``, ``State._been_writen``, ``State._trace_state``: to undo what a failed init did, and to let go of the
  trace that a new state was made under. The same.
- ``LANES_TOGETHER``: the primitives of ``brainstate.transform.unvmap``, which reduce over all lanes. A public way to
  ask of a primitive whether its rule for lanes mixes them.
"""

from brainstate._state import TRACE_CONTEXT, NonBatchState
from brainstate.transform._mapping_core import INIT_NO_BATCHING
from brainstate.transform._unvmap import _no_vmap_prim, unvmap_all_p, unvmap_any_p, unvmap_max_p
from brainstate.util import StateJaxTracer

from shardinit.backend.private_jax import know

__all__ = ["INIT_NO_BATCHING", "LANES_TOGETHER", "NonBatchState", "STATE_INTERNALS", "StateJaxTracer", "TRACE_CONTEXT"]

STATE_INTERNALS = frozenset({"_value", "_trace_state", "_source_info", "_hooks_manager"})
LANES_TOGETHER = frozenset({unvmap_all_p, unvmap_any_p, unvmap_max_p})
know(*LANES_TOGETHER, mixing_lanes=True)
know(_no_vmap_prim)
