"""Abstract values as the planner sees them."""

from typing import Any

import numpy as np

from shardinit.spec.states import LeafSpec


def leaf_spec(aval: Any, by_lane: bool = True, on_host: bool = False, wish: tuple[str | None, ...] = ()) -> LeafSpec:
    """Describe an abstract value."""
    return LeafSpec(
        shape=tuple(aval.shape),
        dtype=str(aval.dtype) if not isinstance(aval.dtype, np.dtype) else aval.dtype.name,
        itemsize=aval.dtype.itemsize,
        weak_type=bool(getattr(aval, "weak_type", False)),
        by_lane=by_lane,
        on_host=on_host,
        wish=wish,
    )
