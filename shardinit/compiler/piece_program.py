"""One unique program: a lane of it, its arguments, and what it looks up for each of its instances."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding

from shardinit.compiler.keys import table_shape
from shardinit.compiler.lanes import LaneLayout, table_spec
from shardinit.compiler.programs import UniqueProgram
from shardinit.lane.aligned import aligned_constants
from shardinit.lane.equations import Equation, is_key, name_of
from shardinit.lane.key_rows import KeyTable
from shardinit.lane.key_rule import key_impl
from shardinit.lane.primitives import pure_params
from shardinit.planner.placement import aligned_spec


def lane_function(program: UniqueProgram) -> Callable[..., list[Any]]:
    """One lane of a piece: ``(keys, literals, constants, shared) -> outputs``."""

    def run(keys: Any, literals: Any, constants: Any, shared: Any) -> list[Any]:
        given = {
            "constant": list(map(_made_here_if_empty, constants)),
            "shared": list(map(_made_here_if_empty, shared)),
        }
        slots = {"key": keys, "literal": literals, **given}
        made: list[list[Any]] = []

        def read(source: Any) -> Any:
            return made[source[1]][source[2]] if source[0] == "equation" else slots[source[0]][source[1]]

        for equation, sources in zip(program.structure.equations, program.structure.sources, strict=True):
            made.append(_evaluate(equation, [read(s) for s in sources]))
        return [_with_weak_type(read(source), aval) for source, aval, _ in program.outputs]

    return run


def _made_here_if_empty(value: Any) -> Any:
    """XLA of jax 0.11 crashes on an input without elements in a program for several devices."""
    return value if value.size or is_key(jax.typeof(value)) else jnp.zeros(value.shape, value.dtype)


def _evaluate(equation: Equation, arguments: list[Any]) -> list[Any]:
    if name_of(equation.primitive) == "device_put":  # the plan says where things go
        return arguments
    return equation.bind(pure_params(equation), arguments)


def _with_weak_type(value: Any, aval: Any) -> Any:
    if getattr(aval, "weak_type", False) and not jax.typeof(value).weak_type:
        return lax.convert_element_type_p.bind(value, new_dtype=aval.dtype, weak_type=True, sharding=None)
    return value


def argument_shapes(program: UniqueProgram, tables: Sequence[KeyTable], layout: LaneLayout) -> tuple[Any, ...]:
    """Shapes, dtypes and shardings of a compiled program's arguments."""

    def replicated(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=layout.replicated)

    used = sorted({table for table, _ in program.structure.keys})
    key_tables = {
        str(t): jax.ShapeDtypeStruct(
            table_shape(tables[t], layout), jnp.uint32, sharding=layout.sharding(table_spec(layout))
        )
        for t in used
    }
    count = len(program.instances)
    rows = replicated((count, len(program.instances[0].rows)), jnp.int32)
    literals = {k: replicated(v.shape, v.dtype) for k, v in literal_tables(program).items()}
    constants = [
        jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding)
        for a, sharding in zip(program.structure.constants, constant_shardings(program, layout), strict=True)
    ]
    lane = (layout.lanes_axis,) if layout.lanes_axis else ()
    shared = [
        jax.ShapeDtypeStruct((layout.computed, *a.shape), a.dtype, sharding=layout.sharding(lane))
        if by_lane
        else replicated(a.shape, a.dtype)
        for a, by_lane in program.structure.shared
    ]
    return key_tables, replicated((), jnp.int32), rows, literals, constants, shared


def constant_shardings(program: UniqueProgram, layout: LaneLayout) -> list[NamedSharding | None]:
    """Where each array from outside goes: whole to every device, or in parts where the piece makes such parts of it."""
    part: tuple[str | None, ...] = ()
    if layout.mesh is not None and layout.computed == layout.axis_size and program.way.strategy == "gspmd":
        part = aligned_spec((p.out_axis, p.partition_spec) for p in program.places)
    return [layout.sharding(part if is_aligned else ()) for is_aligned in aligned_constants(program.structure)]


def literal_tables(program: UniqueProgram) -> dict[str, np.ndarray]:
    """Literals of all instances, one table ``[instances, slots]`` per dtype."""
    slots = literal_slots(program)
    return {
        name: np.array([[i.literals[s] for s in numbers] for i in program.instances]).reshape(
            len(program.instances), len(numbers)
        )
        for name, numbers in slots.items()
    }


def literal_slots(program: UniqueProgram) -> dict[str, list[int]]:
    """Numbers of the literal slots of each dtype."""
    slots: dict[str, list[int]] = {}
    for slot, aval in enumerate(program.structure.literals):
        slots.setdefault(str(aval.dtype), []).append(slot)
    return slots


def call_of(
    program: UniqueProgram, tables: Sequence[KeyTable], mapped: Callable[..., list[Any]]
) -> Callable[..., tuple[Any, list[Any]]]:
    """Make the function that is compiled: it looks up what is the next instance's, and computes that."""

    def call(
        key_tables: Any, counter: Any, rows: Any, literals: Any, constants: Any, shared: Any
    ) -> tuple[Any, list[Any]]:
        row = lax.dynamic_index_in_dim(rows, counter, keepdims=False)
        values: list[Any] = [None] * len(program.structure.literals)
        for name, numbers in literal_slots(program).items():
            found = lax.dynamic_index_in_dim(literals[name], counter, keepdims=False)
            for position, slot in enumerate(numbers):
                values[slot] = found[position]
        keys = _keys(program, tables, key_tables, row)
        return counter + 1, mapped(counter, keys, values, constants, shared)

    return call


def _keys(program: UniqueProgram, tables: Sequence[KeyTable], key_tables: Any, row: Any) -> list[jax.Array]:
    """Keys of each slot, lanes first."""
    keys, at = [], 0
    for table, shape in program.structure.keys:
        count = math.prod(shape)
        if shape == ():
            words = lax.dynamic_index_in_dim(key_tables[str(table)], row[at], keepdims=False)
        else:
            words = jnp.moveaxis(key_tables[str(table)][row[at : at + count]], 0, 1)
            words = words.reshape(words.shape[0], *shape, words.shape[-1])
        keys.append(jax.random.wrap_key_data(words, impl=key_impl(tables[table].dtype)))
        at += count
    return keys
