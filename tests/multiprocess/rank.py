"""What the processes of test jobs have in common."""

import json
import os
from typing import Any

import jax
import numpy as np


def join(job: dict[str, Any], processes: int, rank: int) -> None:
    """Join the job, by JAX's own call; ``collectives`` false takes the means of collectives away."""
    if not job.get("collectives", True):
        break_collectives(job["coordinator"], rank)
    if processes > 1:
        jax.distributed.initialize(
            job["coordinator"], processes, rank, cluster_detection_method="deactivate", initialization_timeout=60
        )


def break_collectives(coordinator: str, rank: int) -> None:
    """Let gloo look for its peers through a client that is not connected: every collective then fails.

    Without gloo at all the backend compiles nothing for several processes.
    """
    from jax._src import xla_bridge

    make = xla_bridge._jax.make_gloo_tcp_collectives
    nobody = xla_bridge._jax.get_distributed_runtime_client(coordinator, rank, shutdown_on_destruction=False)
    xla_bridge._jax.make_gloo_tcp_collectives = lambda distributed_client: make(distributed_client=nobody)


def leaves_of(states: dict[Any, list[Any]]) -> list[Any]:
    """Leaves of all states, keys as their raw numbers."""
    leaves = [leaf for group in states.values() for state in group for leaf in jax.tree.leaves(state.value)]
    is_key = [jax.dtypes.issubdtype(getattr(leaf, "dtype", None), jax.dtypes.prng_key) for leaf in leaves]
    return [jax.random.key_data(leaf) if key else leaf for leaf, key in zip(leaves, is_key, strict=True)]


def write_shards(folder: str, name: str, states: dict[Any, list[Any]]) -> None:
    """Write this process's shards of every leaf, each with its place; a host value is one shard."""
    shards = {}
    for number, leaf in enumerate(leaves_of(states)):
        if not isinstance(leaf, jax.Array):
            leaf = np.asarray(leaf)
            shards[f"{number}|0|{json.dumps([[0, n] for n in leaf.shape])}|{json.dumps(leaf.shape)}"] = leaf
            continue
        for at, shard in enumerate(leaf.addressable_shards):
            assert shard.device.process_index == jax.process_index()
            place = [s.indices(n)[:2] for s, n in zip(shard.index, leaf.shape, strict=True)]
            data = np.asarray(shard.data)
            shards[f"{number}|{at}|{json.dumps(place)}|{json.dumps(leaf.shape)}"] = data
    np.savez(os.path.join(folder, f"{name}.{jax.process_index()}.npz"), **shards)
