"""The peers: every way to make the same arrays that the benchmark compares, and the works they do.

A maker gets a work and a mesh, and returns ``prepare``; each ``prepare()`` builds a module (or a key)
outside of the clock and returns the call that is timed, which returns ``Made``.
"""

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))

NextKey = Callable[[], jax.Array]
Lanes = PartitionSpec("lanes")


@dataclass(frozen=True, slots=True)
class Work:
    """A module to initialize, and the same arrays written by hand, if somebody did.

    Attributes
    ----------
    name
        ``w1:L``, ``ei`` or ``rnn``.
    lanes
        Number of lanes.
    build
        Makes the brainstate module.
    blocks, draws, by_hand
        Number of blocks, draws per block, and a function from a source of keys to one block's arrays.
    """

    name: str
    lanes: int
    build: Callable[[], Any]
    blocks: int = 0
    draws: int = 0
    by_hand: Callable[[NextKey], dict[str, jax.Array]] | None = None


@dataclass(slots=True)
class Made:
    """The arrays of one call, and what else the peer returned."""

    arrays: list[jax.Array]
    result: Any = None


Prepare = Callable[[], Callable[[], Made]]


def find_work(name: str) -> Work:
    kind, _, size = name.partition(":")
    if kind == "w1":
        import mlp96

        return Work(name, 8, lambda: mlp96.build(layers=int(size)), int(size), 3, _mlp_block)
    if kind == "rnn":
        import deep_rnn

        return Work(name, 8, deep_rnn.build, 24, 2, _rnn_block)
    if kind == "ei":
        import ei_network

        return Work(name, 64, ei_network.build)
    raise ValueError(f"work {name!r} is not known. Use w1:L, such as w1:96, or rnn, or ei.")


def _mlp_block(next_key: NextKey) -> dict[str, jax.Array]:
    return {
        "w1": jax.random.normal(next_key(), (128, 512)) * 0.02,
        "b1": jnp.zeros(512),
        "w2": jax.random.normal(next_key(), (512, 128)) * 0.02,
        "b2": jnp.zeros(128),
        "h": jax.random.uniform(next_key(), (128,)),
    }


def _rnn_block(next_key: NextKey) -> dict[str, jax.Array]:
    n = 128
    return {
        "gates": jax.nn.initializers.xavier_normal()(next_key(), (2 * n, 4 * n)),
        "gates_bias": jnp.zeros(4 * n),
        "linear": jax.nn.initializers.kaiming_normal()(next_key(), (n, n)),
        "linear_bias": jnp.zeros(n),
        "scale": jnp.ones(n),
        "scale_bias": jnp.zeros(n),
        "h": jnp.zeros(n),
        "c": jnp.zeros(n),
    }


def _state_arrays(states_by_axis: dict[Any, list[Any]]) -> list[jax.Array]:
    values = [s.value for states in states_by_axis.values() for s in states]
    return [leaf for leaf in jax.tree.leaves(values) if isinstance(leaf, jax.Array)]


def shardinit(work: Work, mesh: Mesh) -> Prepare:
    import shardinit as package

    def prepare():
        module = work.build()

        def make():
            result = package.shard_new_states(module, axis_size=work.lanes)
            return Made(_state_arrays(result.states), result)

        return make

    return prepare


def upstream(work: Work, mesh: Mesh) -> Prepare:
    import brainstate

    def prepare():
        module = work.build()

        def make():
            found = brainstate.transform.vmap2_new_states(module, {}, axis_size=work.lanes)
            for axis, states in found.items():
                spec = PartitionSpec() if axis is None else PartitionSpec(*(None,) * axis, "lanes")
                for state in states:
                    state.value = jax.device_put(state.value, NamedSharding(mesh, spec))
            return Made(_state_arrays(found))

        return make

    return prepare


def _new_states(transform: Callable[..., Any], work: Work) -> Prepare:
    def prepare():
        module = work.build()
        return lambda: Made(_state_arrays(transform(module, {}, axis_size=work.lanes)))

    return prepare


def upstream_pmap(work: Work, mesh: Mesh) -> Prepare:
    import brainstate

    return _new_states(brainstate.transform.pmap2_new_states, work)


def upstream_vmap(work: Work, mesh: Mesh) -> Prepare:
    """Brainstate on one device: no device_put."""
    import brainstate

    return _new_states(brainstate.transform.vmap2_new_states, work)


def shardinit_vmap(work: Work, mesh: Mesh) -> Prepare:
    import shardinit as package

    return _new_states(package.vmap2_new_states, work)


def _with_new_key(create: Callable[[jax.Array], Any]) -> Prepare:
    """Time ``create`` with another key for every call."""
    seeds = iter(range(1 << 30))

    def prepare():
        key = jax.random.key(next(seeds))

        def make():
            made = create(key)
            return Made([leaf for leaf in jax.tree.leaves(made) if isinstance(leaf, jax.Array)], made)

        return make

    return prepare


def _lane_keys(key: jax.Array, work: Work, sharding: NamedSharding) -> jax.Array:
    return jax.lax.with_sharding_constraint(jax.random.split(key, work.lanes), sharding)


def _key_source(key: jax.Array, work: Work) -> NextKey:
    """All keys of a lane from one split: the fastest of the forms tried (a chain of splits compiles slower)."""
    keys = jax.random.split(key, work.blocks * work.draws)
    numbers: Iterator[int] = iter(range(len(keys)))
    return lambda: keys[next(numbers)]


def _by_hand(work: Work) -> Callable[[NextKey], dict[str, jax.Array]]:
    if work.by_hand is None:
        raise ValueError(f"{work.name} has no hand-written form: measure it with the peer one_program_brainstate.")
    return work.by_hand


def one_program(work: Work, mesh: Mesh) -> Prepare:
    block, sharding = _by_hand(work), NamedSharding(mesh, Lanes)

    def lane(key):
        next_key = _key_source(key, work)
        return [block(next_key) for _ in range(work.blocks)]

    return _with_new_key(jax.jit(lambda key: jax.vmap(lane)(_lane_keys(key, work, sharding)), out_shardings=sharding))


def one_program_brainstate(work: Work, mesh: Mesh) -> Prepare:
    """The module's own init, mapped and compiled as one program."""
    import brainstate

    module, sharding = work.build(), NamedSharding(mesh, Lanes)

    def lane(key):
        with brainstate.catch_new_states() as catcher, brainstate.StateTraceStack() as stack:
            brainstate.random.DEFAULT.value = key
            module.init_all_states()
            values = [s.value for s in catcher.get_states()]
        stack.recovery_original_values()
        return values

    return _with_new_key(jax.jit(lambda key: jax.vmap(lane)(_lane_keys(key, work, sharding)), out_shardings=sharding))


def nnx(work: Work, mesh: Mesh) -> Prepare:
    from flax import nnx as flax_nnx

    block, sharding = _by_hand(work), NamedSharding(mesh, Lanes)

    class Block(flax_nnx.Module):
        def __init__(self, rngs):
            for name, value in block(rngs.params).items():
                setattr(self, name, flax_nnx.Param(value))

    class Net(flax_nnx.Module):
        def __init__(self, key):
            rngs = flax_nnx.Rngs(params=key)
            self.blocks = flax_nnx.List([Block(rngs) for _ in range(work.blocks)])

    @flax_nnx.jit
    def create(key):
        net = flax_nnx.vmap(Net)(_lane_keys(key, work, sharding))
        flax_nnx.update(net, jax.lax.with_sharding_constraint(flax_nnx.state(net), sharding))
        return net

    return _with_new_key(create)


def equinox(work: Work, mesh: Mesh) -> Prepare:
    import equinox as eqx

    block, sharding = _by_hand(work), NamedSharding(mesh, Lanes)

    class Block(eqx.Module):
        arrays: dict[str, jax.Array]

        def __init__(self, next_key):
            self.arrays = block(next_key)

    class Net(eqx.Module):
        blocks: list[Block]

        def __init__(self, key):
            next_key = _key_source(key, work)
            self.blocks = [Block(next_key) for _ in range(work.blocks)]

    @eqx.filter_jit
    def create(key):
        return eqx.filter_shard(eqx.filter_vmap(Net)(_lane_keys(key, work, sharding)), sharding)

    return _with_new_key(create)


def _bytes_of(work: Work) -> int:
    import shardinit as package

    return work.lanes * sum(leaf.lane_bytes for spec in package.discover(work.build()).specs for leaf in spec.leaves)


def bare(work: Work, mesh: Mesh) -> Prepare:
    """As many bytes as the work makes, from one compiled sharded draw: what computing alone costs."""
    shape = (work.lanes, _bytes_of(work) // work.lanes // 4)
    sharding = NamedSharding(mesh, Lanes)
    return _with_new_key(jax.jit(lambda key: jax.random.normal(key, shape), out_shardings=sharding))


def bare_pieces(work: Work, mesh: Mesh) -> Prepare:
    """The same bytes from one compiled draw of a w1[128, 512] per lane, dispatched again and again.

    A stricter limit than ``bare``, whose temporaries are too large for the caches.
    """
    shape = (work.lanes, 128, 512)
    calls = max(1, round(_bytes_of(work) / 4 / math.prod(shape)))
    sharding = NamedSharding(mesh, Lanes)
    draw = jax.jit(lambda key: jax.random.normal(key, shape), out_shardings=sharding)
    split = jax.jit(lambda key: tuple(jax.random.split(key, calls)))
    return _with_new_key(lambda key: [draw(k) for k in split(key)])


MAKERS = {
    maker.__name__: maker
    for maker in (
        shardinit,
        upstream,
        upstream_pmap,
        one_program,
        one_program_brainstate,
        nnx,
        equinox,
        bare,
        bare_pieces,
        shardinit_vmap,
        upstream_vmap,
    )
}
