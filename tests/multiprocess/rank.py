"""One process of a job: initialize a module over all processes' devices, write its own shards to a file."""

import json
import os
import resource
import sys

import jax


def main() -> None:
    job = json.loads(sys.argv[1])
    rank = int(sys.argv[2])
    if job.get("collectives"):
        jax.config.update("jax_cpu_collectives_implementation", job["collectives"])
    if job["processes"] > 1:
        jax.distributed.initialize(
            job["coordinator"], job["processes"], rank, cluster_detection_method="deactivate", initialization_timeout=60
        )
    import brainstate
    import numpy as np

    import shardinit
    from tests import modules

    brainstate.random.seed(7)
    module = getattr(modules, job["module"])()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = shardinit.shard_new_states(module, **job["options"])
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    shards, names = {}, []
    for axis, states in result.states.items():
        for state in states:
            for leaf in jax.tree.leaves(state.value):
                names.append(str(axis))
                if jax.dtypes.issubdtype(getattr(leaf, "dtype", None), jax.dtypes.prng_key):
                    leaf = jax.random.key_data(leaf)
                if not isinstance(leaf, jax.Array):
                    shards[f"{len(names) - 1}|all"] = np.asarray(leaf)
                    continue
                assert all(s.device.process_index == jax.process_index() for s in leaf.addressable_shards)
                for number, shard in enumerate(leaf.addressable_shards):
                    place = json.dumps([[s.indices(n)[0], s.indices(n)[1]] for s, n in zip(shard.index, leaf.shape)])
                    shards[f"{len(names) - 1}|{number}|{place}|{list(leaf.shape)}"] = np.asarray(shard.data)
    shards["random"] = np.asarray(jax.random.key_data(brainstate.random.DEFAULT.value))
    np.savez(os.path.join(job["folder"], f"rank{rank}.npz"), **shards)
    with open(os.path.join(job["folder"], f"rank{rank}.json"), "w") as file:
        json.dump({"receipt": json.loads(result.receipt.to_json()), "grown": (after - before) * 1024}, file)


if __name__ == "__main__":
    main()
