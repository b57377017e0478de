"""A module whose init misbehaves in one rank, as the environment says; and the same in bare JAX, for comparison.

``FAULT`` is what happens, ``FAULTY_RANK`` where, ``FAULT_FILE`` a file that gets the time just before.
"""

import os
import signal
import sys
import time

WAIT_SECONDS = 45.0  # for faults that come from outside


def misbehave(rank: int) -> None:
    fault = os.environ.get("FAULT", "")
    if fault == "wait":
        time.sleep(WAIT_SECONDS)
    if not fault or fault == "wait" or rank != int(os.environ["FAULTY_RANK"]):
        return
    with open(os.environ["FAULT_FILE"], "w") as file:
        file.write(str(time.time()))
    if fault == "exit":
        sys.exit(1)
    if fault == "raise":
        raise ValueError("thirteen is unlucky")
    if fault in ("KILL", "STOP"):
        os.kill(os.getpid(), signal.Signals["SIG" + fault])
        time.sleep(WAIT_SECONDS)


def build():
    import brainstate
    import jax

    class Net(brainstate.nn.Module):
        def init_state(self, size=64):
            self.w = brainstate.ParamState(brainstate.random.normal(size=(size, 64)))
            misbehave(jax.process_index())

    return Net()


def bare() -> None:
    """The recipe of JAX's documentation: initialize, make a sharded array, add it all up."""
    import jax

    rank = int(os.environ["JAX_PROCESS_ID"])
    coordinator = os.environ["JAX_COORDINATOR_ADDRESS"]
    jax.distributed.initialize(coordinator, int(os.environ["JAX_NUM_PROCESSES"]), rank)
    from jax.sharding import Mesh, NamedSharding
    from jax.sharding import PartitionSpec as P

    if os.environ.get("SEED_FILE"):
        with open(os.environ["SEED_FILE"]) as file:
            seed = int(file.read())
    else:
        seed = int(os.environ.get("SEED", 0))
    size = int(os.environ.get("SIZE", 64))
    mesh = Mesh(jax.devices(), ("lanes",))
    keys = jax.random.split(jax.random.key(seed), len(jax.devices()))

    def init(keys):
        return jax.vmap(lambda key: jax.random.normal(key, (size, 64)))(keys)

    made = jax.jit(init, out_shardings=NamedSharding(mesh, P("lanes")))(keys)
    made.block_until_ready()
    open(f"{os.environ['READY_FILES']}.{rank}", "w").close()
    misbehave(rank)
    print(rank, float(jax.jit(lambda x: x.sum())(made)), flush=True)


if __name__ == "__main__":
    bare()
