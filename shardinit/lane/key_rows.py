"""Keys as rows of tables: which key of a program is derived from which, and how.

For example, ``key, a = split(key)`` and then ``key, b = split(key)`` are two steps: the first reads row 0 (the lane's
key) and fills rows 1 and 2, the second reads row 1 and fills rows 3 and 4; ``a`` is row 2, ``b`` is row 4.

Init code draws by ``key, sub = split(key)``, once per draw, so the keys form a long chain that would
dominate the compile time if it were compiled as it stands. Here every key of the chain gets a row in a
table, and one loop fills the table: its length is data, not program. Slices and reshapes of key
arrays are arithmetic on row numbers and cost nothing.
"""

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from shardinit.backend.private_jax import Settings
from shardinit.lane.equations import Equation, Literal, Variable, is_key, name_of

KEY_MOVES = frozenset({"slice", "squeeze", "reshape"})


@dataclass(slots=True)
class KeyTable:
    """Rows for the keys of one RNG implementation.

    Rows 0 to ``len(roots) - 1`` are the lane keys of the random states; each step reads the row
    ``parent`` and fills the rows from ``first`` on.

    Attributes
    ----------
    dtype
        The key dtype, ``key<fry>``.
    roots
        Inputs of the program, in the order of their rows.
    children, settings
        Per step: how many keys it makes, 0 for one key by ``fold_in``; JAX's settings there.
    parents, data
        Per step: the row it reads; the integer it folds in.
    size
        Number of rows.
    rows
        Row numbers of each key variable, in its shape.
    """

    dtype: object
    roots: list[Variable] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    children: list[int] = field(default_factory=list)
    settings: list[Settings] = field(default_factory=list)
    data: list[int] = field(default_factory=list)
    rows: dict[Variable, np.ndarray] = field(default_factory=dict)
    size: int = 0

    def add_root(self, variable: Variable) -> None:
        """Give the key of a random state the next row."""
        self.rows[variable] = np.array(self.size)
        self.roots.append(variable)
        self.size += 1

    def add_step(self, parent: int, children: int, settings: Settings, data: int = 0) -> np.ndarray:
        """Append a step and return the rows that it fills."""
        self.parents.append(parent)
        self.children.append(children)
        self.settings.append(settings)
        self.data.append(data)
        first, self.size = self.size, self.size + max(children, 1)
        return np.arange(first, self.size)

    @property
    def rows_held(self) -> int:
        """Rows of the filled table, the unused ones at its end included."""
        return self.size + max((1, *self.children)) - 1

    @property
    def kinds(self) -> tuple[tuple[int, Settings], ...]:
        """The numbers of children that occur, each with the settings under which keys are derived."""
        return tuple(sorted(set(zip(self.children, self.settings, strict=True)), key=repr))

    def steps(self) -> dict[str, np.ndarray]:
        """What each step reads, does and writes, as data for ``fill_table``."""
        made = np.maximum(np.array(self.children, np.int32), 1)
        number = {kind: n for n, kind in enumerate(self.kinds)}
        kinds = [number[kind] for kind in zip(self.children, self.settings, strict=True)]
        return {
            "parent": np.array(self.parents, np.int32),
            "kind": np.array(kinds, np.int32),
            "data": np.array(self.data, np.uint32),
            "first": (len(self.roots) + np.cumsum(made) - made).astype(np.int32),
        }


@functools.cache
def key_words(dtype: Any) -> int:
    """Number of uint32 words of one raw key."""
    return math.prod(jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct((), dtype)).shape)


def key_tables(inputs: Iterable[Variable], equations: Iterable[Equation]) -> list[KeyTable]:
    """Assign rows to every key that is derived from the lane keys by splits, folds and moves.

    ``equations`` come in the order of the trace. Keys derived in another way (folding in a traced
    value, a gather) get no row: the pieces that need them compute them.
    """
    tables: dict[str, KeyTable] = {}
    for variable in inputs:
        table = tables.setdefault(str(variable.aval.dtype), KeyTable(variable.aval.dtype))
        table.add_root(variable)
    for equation in equations:
        output = equation.outputs[0] if len(equation.outputs) == 1 else None
        if output is None or not is_key(output.aval) or not output.on_axis:
            continue
        source = equation.inputs[0]
        found = tables.get(str(output.aval.dtype))
        if found is None or not isinstance(source, Variable) or source not in found.rows:
            continue
        rows = _rows(found, equation, found.rows[source])
        if rows is not None:
            found.rows[output] = rows.reshape(output.aval.shape)
    return list(tables.values())


def _rows(table: KeyTable, equation: Equation, source: np.ndarray) -> np.ndarray | None:
    name, params = name_of(equation.primitive), equation.params
    if name == "random_split" and source.ndim == 0 and np.prod(params["shape"]):
        return table.add_step(int(source), int(np.prod(params["shape"])), equation.settings)
    if name == "random_fold_in" and source.ndim == 0:
        data = equation.inputs[1]
        if isinstance(data, Literal):
            return table.add_step(int(source), 0, equation.settings, int(data.value) & 0xFFFFFFFF)
        return None
    if name == "slice":
        steps = params["strides"] or (1,) * source.ndim
        bounds = zip(params["start_indices"], params["limit_indices"], steps, strict=True)
        return source[tuple(slice(*b) for b in bounds)]
    turns = name == "reshape" and params["dimensions"] is not None
    return source if name in KEY_MOVES and not turns else None
