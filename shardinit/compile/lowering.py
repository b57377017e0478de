"""From a unique program to a compiled one: lanes mapped, placed on the mesh, compiled ahead of time."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from shardinit.compile.eager_steps import in_eager_steps
from shardinit.compile.keys import fill_table, key_impl, lane_keys
from shardinit.compile.layout import Layout, table_spec
from shardinit.compile.programs import Placement, UniqueProgram
from shardinit.compile.slices import sliced
from shardinit.errors import PlanError
from shardinit.lane.aligned import aligned_constants
from shardinit.lane.equations import UNKNOWN, is_key, name_of
from shardinit.lane.key_rows import KeyTable, key_words
from shardinit.lane.primitives import COLLECTIVES, UNSPLITTABLE, contains, pure_params
from shardinit.plan.placement import aligned_spec

# ---- keys


def key_program(table: KeyTable, layout: Layout) -> tuple[Any, tuple[Any, ...]]:
    """Make the key program, ready to lower: raw keys of the random states in, a key table out."""
    lanes_here = layout.axis_size // layout.shards
    impl = key_impl(table.dtype)

    def derive(roots, steps):
        first = lax.axis_index(layout.lanes_axis) * lanes_here if layout.lanes_axis else 0
        lanes = first + jnp.arange(lanes_here, dtype=jnp.uint32 if layout.axis_size >= 2**31 else jnp.int32)
        keys = [lane_keys(jax.random.wrap_key_data(r, impl=impl), lanes, layout.kept) for r in roots]
        return fill_table(table, jnp.stack([jax.random.key_data(k) for k in keys]), steps)

    words = key_words(table.dtype)
    steps = {
        name: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=layout.replicated) for name, a in table.steps().items()
    }
    roots = [jax.ShapeDtypeStruct((words,), jnp.uint32, sharding=layout.replicated)] * len(table.roots)
    if layout.mesh is not None:
        derive = jax.shard_map(
            derive, mesh=layout.mesh, in_specs=P(), out_specs=P(*table_spec(layout)), check_vma=False
        )
    return _named(derive, "shardinit_keys"), (roots, steps)


# ---- pieces


def lane_function(program: UniqueProgram):
    """One lane of a piece: ``(keys, literals, constants, shared) -> outputs``."""

    def run(keys, literals, constants, shared):
        given = {
            "constant": list(map(_made_here_if_empty, constants)),
            "shared": list(map(_made_here_if_empty, shared)),
        }
        slots = {"key": keys, "literal": literals, **given}
        made: list[list[Any]] = []

        def read(source):
            return made[source[1]][source[2]] if source[0] == "equation" else slots[source[0]][source[1]]

        for equation, sources in zip(program.structure.equations, program.structure.sources, strict=True):
            made.append(_evaluate(equation, [read(s) for s in sources]))
        return [_with_weak_type(read(source), aval) for source, aval, _ in program.outputs]

    return run


def _made_here_if_empty(value):
    """XLA of jax 0.11 crashes on an input without elements in a program for several devices."""
    return value if value.size or is_key(jax.typeof(value)) else jnp.zeros(value.shape, value.dtype)


def _evaluate(equation, arguments):
    if name_of(equation.primitive) == "device_put":  # the plan says where things go
        return arguments
    return equation.bind(pure_params(equation), arguments)


def _with_weak_type(value, aval):
    if getattr(aval, "weak_type", False) and not jax.typeof(value).weak_type:
        return lax.convert_element_type_p.bind(value, new_dtype=aval.dtype, weak_type=True, sharding=None)
    return value


def uses(program: UniqueProgram, names: frozenset[str]) -> bool:
    """Whether an equation of the program, however deep, is one of these primitives."""
    return any(contains(e, names) for e in program.structure.equations)


def strategy_of(program: UniqueProgram, layout: Layout) -> str:
    """The strategy that the program runs under, which may be another than the plan's for single pieces."""
    strategy = program.strategy
    if strategy in ("shard_map", "gspmd") and uses(program, COLLECTIVES):
        if layout.kept != layout.axis_size:
            raise PlanError(
                f"init uses collectives over the lanes, which would count the {layout.axis_size - layout.kept} lanes "
                "that remainder='pad' adds. Use remainder='factor'."
            )
        alone = layout.shards == layout.axis_size and layout.axis_name == layout.lanes_axis
        return "shard_map" if alone else "gspmd"
    if strategy not in ("shard_map", "gspmd"):
        return strategy
    by_lanes = all(_splits_lanes(p, layout) for p in program.placements)
    if not by_lanes and (layout.kept != layout.axis_size or uses(program, frozenset({UNKNOWN}))):
        return "padded"
    return "shard_map" if by_lanes and (strategy == "shard_map" or uses(program, UNSPLITTABLE)) else "gspmd"


def _splits_lanes(placement: Placement, layout: Layout) -> bool:
    """Whether an output that has lanes has them split over the axis of the lanes, and no other axis is."""
    spec = placement.partition_spec
    where = [axis for axis, name in enumerate(spec) if name is not None and name == layout.lanes_axis]
    return where == ([] if placement.out_axis is None else [placement.out_axis])


def piece_program(program: UniqueProgram, tables: Sequence[KeyTable], layout: Layout) -> tuple[Any, tuple[Any, ...]]:
    """Make a jitted function of a unique program, for all its instances, and the shapes of its arguments.

    The function takes the key tables, its counter, what differs by instance (tables of row
    numbers and literals, then arrays), and returns the next counter and the outputs.
    """
    strategy = strategy_of(program, layout)
    call = _call(program, tables, layout, strategy)
    arguments = argument_shapes(program, tables, layout)
    if strategy in ("shard_map", "padded"):
        specs = [P(*_computed_spec(p, layout, strategy)) for p in program.placements]
        in_specs = jax.tree.map(lambda a: a.sharding.spec, arguments)
        call = jax.shard_map(call, mesh=layout.mesh, in_specs=in_specs, out_specs=(P(), specs), check_vma=False)
    if strategy == "padded":
        call = _cut_off(call, program, layout)
    if strategy == "shard_map" or layout.mesh is None:
        return _named(call, "shardinit_piece"), arguments
    out = (layout.replicated, [layout.sharding(p.partition_spec) for p in program.placements])
    return _named(call, "shardinit_piece", out_shardings=out), arguments


def argument_shapes(program: UniqueProgram, tables: Sequence[KeyTable], layout: Layout) -> tuple[Any, ...]:
    """Shapes, dtypes and shardings of a compiled program's arguments."""

    def replicated(shape, dtype):
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
        jax.ShapeDtypeStruct((layout.axis_size, *a.shape), a.dtype, sharding=layout.sharding(lane))
        if by_lane
        else replicated(a.shape, a.dtype)
        for a, by_lane in program.structure.shared
    ]
    return key_tables, replicated((), jnp.int32), rows, literals, constants, shared


def constant_shardings(program: UniqueProgram, layout: Layout) -> list[NamedSharding | None]:
    """Where each array from outside goes: whole to every device, or in parts where the piece makes such parts of it."""
    part: tuple[str | None, ...] = ()
    if layout.mesh is not None and layout.kept == layout.axis_size and program.strategy == "gspmd":
        part = aligned_spec((p.out_axis, p.partition_spec) for p in program.placements)
    return [layout.sharding(part if is_aligned else ()) for is_aligned in aligned_constants(program.structure)]


def table_shape(table: KeyTable, layout: Layout) -> tuple[int, int, int]:
    """Shape of a filled key table, all lanes together."""
    return (table.rows_held, layout.axis_size, key_words(table.dtype))


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


def _call(program: UniqueProgram, tables: Sequence[KeyTable], layout: Layout, strategy: str):
    mapped = _mapped(program, layout, strategy)

    def call(key_tables, counter, rows, literals, constants, shared):
        row = lax.dynamic_index_in_dim(rows, counter, keepdims=False)
        values: list[Any] = [None] * len(program.structure.literals)
        for name, numbers in literal_slots(program).items():
            found = lax.dynamic_index_in_dim(literals[name], counter, keepdims=False)
            for position, slot in enumerate(numbers):
                values[slot] = found[position]
        outputs = mapped(counter, _keys(program, tables, key_tables, row), values, constants, shared)
        if strategy == "shard_map":
            outputs = [_own_shard(o, p, layout) for o, p in zip(outputs, program.placements, strict=True)]
        return counter + 1, outputs

    return call


def _computed_spec(placement: Placement, layout: Layout, strategy: str) -> tuple[str | None, ...]:
    """PartitionSpec in which shard_map makes an output: with padded lanes, these are split first."""
    if strategy != "padded" or placement.out_axis is None:
        return placement.partition_spec
    return tuple(layout.lanes_axis if a == placement.out_axis else None for a in range(len(placement.partition_spec)))


def _cut_off(call, program: UniqueProgram, layout: Layout):
    """Cut the padded lanes off what is not handed on to other pieces, which compute them as well."""

    def run(*arguments):
        counter, outputs = call(*arguments)
        kept = [
            o
            if p.out_axis is None or _splits_lanes(p, layout)
            else lax.slice_in_dim(o, 0, layout.kept, axis=p.out_axis)
            for o, p in zip(outputs, program.placements, strict=True)
        ]
        return counter, kept

    return run


def _mapped(program: UniqueProgram, layout: Layout, strategy: str):
    """Map one lane over the lanes that a device has; the first argument is the counter."""
    lane = lane_function(program)
    apart = program.rounding != "same" and layout.rounds_by_place
    steps = partial(in_eager_steps, apart=apart) if layout.exact else _in_one
    if strategy == "local" and all(p.out_axis is None for p in program.placements):
        return steps(lane)
    collective = uses(program, COLLECTIVES)
    if strategy == "shard_map" and collective:
        return steps(_one_lane_per_device(program, lane))
    lanes = layout.axis_size // (layout.shards if strategy in ("shard_map", "padded") else 1)
    mapped = jax.vmap(
        lane,
        in_axes=(0, None, None, [0 if by_lane else None for _, by_lane in program.structure.shared]),
        out_axes=[p.out_axis for p in program.placements],
        axis_size=lanes // program.slices,
        **({"axis_name": layout.axis_name} if collective else {}),
    )
    if program.slices == 1:
        return steps(mapped)
    return sliced(program, steps(mapped), layout, layout.shards if strategy == "gspmd" else 1, lanes)


def _one_lane_per_device(program: UniqueProgram, lane):
    """Run the one lane of a device unmapped, so that its collectives are those of the mesh axis."""

    def run(keys, literals, constants, shared):
        own = [v[0] if by_lane else v for v, (_, by_lane) in zip(shared, program.structure.shared, strict=True)]
        outputs = lane([k[0] for k in keys], literals, constants, own)
        axes = [p.out_axis for p in program.placements]
        return [o if axis is None else jnp.expand_dims(o, axis) for o, axis in zip(outputs, axes, strict=True)]

    return run


def _in_one(function):
    """Leave the steps to XLA."""
    return lambda counter, *arguments: function(*arguments)


def _keys(program: UniqueProgram, tables: Sequence[KeyTable], key_tables, row):
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


def _own_shard(value, placement: Placement, layout: Layout):
    """Cut out this device's part along the mesh axes that do not split the lanes."""
    for axis, name in enumerate(placement.partition_spec):
        if name is not None and name != layout.lanes_axis and layout.mesh is not None:
            size = value.shape[axis] // layout.mesh.shape[name]
            value = lax.dynamic_slice_in_dim(value, lax.axis_index(name) * size, size, axis)
    return value


def _named(function, name: str, **options):
    def wrapped(*args):
        return function(*args)

    wrapped.__name__ = wrapped.__qualname__ = name
    return jax.jit(wrapped, **options)
