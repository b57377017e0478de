"""One class per strategy: over which lanes a device maps a piece, and how the result is placed on the mesh.

The planner chooses (``shardinit.planner.strategies``); nothing here overrides it.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P

from shardinit.compiler.eager_steps import in_eager_steps
from shardinit.compiler.keys import named
from shardinit.compiler.lanes import LaneLayout
from shardinit.compiler.piece_program import argument_shapes, call_of, lane_function
from shardinit.compiler.programs import Place, UniqueProgram
from shardinit.compiler.slices import sliced
from shardinit.lane.key_rows import KeyTable
from shardinit.lane.primitives import COLLECTIVES
from shardinit.spec.options import Strategy

Jitted = Any
Arguments = tuple[Any, ...]


def piece_program(program: UniqueProgram, tables: Sequence[KeyTable], layout: LaneLayout) -> tuple[Jitted, Arguments]:
    """Make a jitted function of a unique program, for all its instances, and the shapes of its arguments.

    The function takes the key tables, its counter, what differs by instance (tables of row
    numbers and literals, then arrays), and returns the next counter and the outputs.
    ``layout`` is the one that ``layout_of`` gives.
    """
    strategy = BY_NAME[program.way.strategy]
    arguments = argument_shapes(program, tables, layout)
    call = call_of(program, tables, strategy.mapped(program, layout))
    return strategy.jitted(call, program, layout, arguments), arguments


def layout_of(program: UniqueProgram, layout: LaneLayout) -> LaneLayout:
    """How the lanes of a program are laid out: on the mesh, all of them on every device, or on the default device."""
    return BY_NAME[program.way.strategy].layout(layout)


class Vmap:
    """Every device computes all lanes; without a mesh, the only one does."""

    def layout(self, layout: LaneLayout) -> LaneLayout:
        """How the lanes are laid out."""
        return layout.unsplit()

    def lanes(self, layout: LaneLayout) -> int:
        """Lanes that one call maps over."""
        return layout.computed

    def parts(self, layout: LaneLayout) -> int:
        """Into how many parts XLA splits these lanes."""
        return 1

    def mapped(self, program: UniqueProgram, layout: LaneLayout) -> Callable[..., Any]:
        """Map one lane over these lanes; the first argument is the counter."""
        lanes = self.lanes(layout)
        name: dict[str, Any] = {"axis_name": layout.axis_name} if program.uses(COLLECTIVES) else {}
        over_lanes = jax.vmap(
            lane_function(program),
            in_axes=(0, None, None, [0 if by_lane else None for _, by_lane in program.structure.shared]),
            out_axes=[p.out_axis for p in program.places],
            axis_size=lanes // program.way.slices,
            **name,
        )
        steps = _in_steps(program, layout)(over_lanes)
        return steps if program.way.slices == 1 else sliced(program, steps, layout, self.parts(layout), lanes)

    def jitted(self, call: Any, program: UniqueProgram, layout: LaneLayout, arguments: Arguments) -> Jitted:
        """Place the outputs on the mesh, if there is one."""
        if layout.mesh is None:
            return named(call, "shardinit_piece")
        out = (layout.replicated, [layout.sharding(p.partition_spec) for p in program.places])
        return named(call, "shardinit_piece", out_shardings=out)


class Local(Vmap):
    """The default device alone computes it, before what runs on the mesh: one value, or all lanes."""

    def layout(self, layout: LaneLayout) -> LaneLayout:
        return layout.on_default_device()

    def mapped(self, program: UniqueProgram, layout: LaneLayout) -> Callable[..., Any]:
        if any(p.out_axis is not None for p in program.places):
            return super().mapped(program, layout)
        return _in_steps(program, layout)(lane_function(program))


class Gspmd(Vmap):
    """XLA partitions one program over all lanes, given the shardings of what goes in and out."""

    def layout(self, layout: LaneLayout) -> LaneLayout:
        return layout

    def parts(self, layout: LaneLayout) -> int:
        return layout.shards


class ShardMap(Vmap):
    """Every device maps over its own lanes, and keeps its part where single lanes are split too."""

    def layout(self, layout: LaneLayout) -> LaneLayout:
        return layout

    def lanes(self, layout: LaneLayout) -> int:
        return layout.computed // layout.shards

    def mapped(self, program: UniqueProgram, layout: LaneLayout) -> Callable[..., Any]:
        if program.uses(COLLECTIVES):
            mapped: Any = _in_steps(program, layout)(_one_lane_per_device(program))
        else:
            mapped = super().mapped(program, layout)

        def own_parts(*arguments: Any) -> list[Any]:
            made = mapped(*arguments)
            return [_own_part(value, place, layout) for value, place in zip(made, program.places, strict=True)]

        return own_parts

    def jitted(self, call: Any, program: UniqueProgram, layout: LaneLayout, arguments: Arguments) -> Jitted:
        return named(_sharded(call, layout, arguments, [p.partition_spec for p in program.places]), "shardinit_piece")


class Padded(ShardMap):
    """Every device maps over its own lanes; then those beyond the last are cut off, and parts are exchanged."""

    def mapped(self, program: UniqueProgram, layout: LaneLayout) -> Callable[..., Any]:
        return Vmap.mapped(self, program, layout)

    def jitted(self, call: Any, program: UniqueProgram, layout: LaneLayout, arguments: Arguments) -> Jitted:
        over_lanes = _sharded(call, layout, arguments, [_lanes_first(p, layout) for p in program.places])

        def cut_off(*given: Any) -> Any:
            counter, outputs = over_lanes(*given)
            return counter, [_kept(value, p, layout) for value, p in zip(outputs, program.places, strict=True)]

        return Vmap.jitted(self, cut_off, program, layout, arguments)


BY_NAME: dict[Strategy, Vmap] = {
    "vmap": Vmap(),
    "local": Local(),
    "gspmd": Gspmd(),
    "shard_map": ShardMap(),
    "padded": Padded(),
}


def _in_steps(program: UniqueProgram, layout: LaneLayout) -> Callable[[Any], Callable[..., Any]]:
    """Evaluate in the steps of eager JAX, or leave the steps to XLA where bits may differ."""
    if not layout.exact:
        return lambda function: lambda counter, *arguments: function(*arguments)
    return partial(in_eager_steps, apart=program.way.rounding != "same" and layout.rounds_by_place)


def _sharded(call: Any, layout: LaneLayout, arguments: Arguments, specs: Sequence[tuple[str | None, ...]]) -> Any:
    in_specs = jax.tree.map(lambda a: a.sharding.spec, arguments)
    out_specs = (P(), [P(*spec) for spec in specs])
    return jax.shard_map(call, mesh=layout.mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def _one_lane_per_device(program: UniqueProgram) -> Callable[..., Any]:
    """Run the one lane of a device unmapped, so that its collectives are those of the mesh axis."""
    lane = lane_function(program)

    def run(keys: Any, literals: Any, constants: Any, shared: Any) -> list[Any]:
        own = [v[0] if by_lane else v for v, (_, by_lane) in zip(shared, program.structure.shared, strict=True)]
        outputs = lane([k[0] for k in keys], literals, constants, own)
        axes = [p.out_axis for p in program.places]
        return [o if axis is None else jnp.expand_dims(o, axis) for o, axis in zip(outputs, axes, strict=True)]

    return run


def _own_part(value: Any, place: Place, layout: LaneLayout) -> Any:
    """Cut out this device's part along the mesh axes that do not split the lanes."""
    for axis, name in enumerate(place.partition_spec):
        if name is not None and name != layout.lanes_axis and layout.mesh is not None:
            size = value.shape[axis] // layout.mesh.shape[name]
            value = lax.dynamic_slice_in_dim(value, lax.axis_index(name) * size, size, axis)
    return value


def _lanes_first(place: Place, layout: LaneLayout) -> tuple[str | None, ...]:
    """PartitionSpec of an output whose lanes alone are split."""
    if place.out_axis is None:
        return place.partition_spec
    return tuple(layout.lanes_axis if a == place.out_axis else None for a in range(len(place.partition_spec)))


def _kept(value: Any, place: Place, layout: LaneLayout) -> Any:
    """Cut padded lanes off, unless it is handed on to other pieces, which compute them as well."""
    if place.out_axis is None or place.partition_spec == _lanes_first(place, layout):
        return value
    return lax.slice_in_dim(value, 0, layout.axis_size, axis=place.out_axis)
