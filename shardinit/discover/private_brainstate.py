"""The private names of brainstate that shardinit depends on, all of them, in one place.

Checked against brainstate 0.5.0 to 0.5.4. ``tests/test_private_names.py`` fails when one of them moves.

- ``TRACE_CONTEXT``: how many state traces are open, so that new states get the level of the caller.
- ``NonBatchState``: documented at top level, exported nowhere in 0.5.
- ``INIT_NO_BATCHING``: the tag by which ``nn.Delay`` asks for axis None.
- ``State._value``, ``State._been_writen``, ``State._trace_state``: to undo what a failed init did, and to
  let go of the trace that a new state was made under.
"""

from brainstate._state import TRACE_CONTEXT, NonBatchState
from brainstate.transform._mapping_core import INIT_NO_BATCHING
from brainstate.util import StateJaxTracer

__all__ = ["INIT_NO_BATCHING", "NonBatchState", "StateJaxTracer", "TRACE_CONTEXT"]
