"""An ensemble of deep recurrent networks, from initialization to a run with one or more lanes per device.

Each block is an LSTM (Hochreiter and Schmidhuber 1997, Neural Computation 9(8), with the forget bias of
Jozefowicz et al. 2015) and a linear readout with a residual connection and layer normalization (Ba et al. 2016,
arXiv:1607.06450). Weights start as in ``brainstate.nn.LSTMCell``, ``Linear`` and ``LayerNorm``, but are made in
``init_state``, so that every lane draws its own.
"""

import time

import brainstate
import jax
import jax.numpy as jnp
from brainstate.nn import init

import shardinit


class Block(brainstate.nn.Module):
    """LSTM, linear layer, residual connection and layer normalization of one size."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def init_state(self):
        n = self.size
        self.gates = brainstate.ParamState({"weight": init.XavierNormal()((2 * n, 4 * n)), "bias": jnp.zeros(4 * n)})
        self.linear = brainstate.ParamState({"weight": init.KaimingNormal()((n, n)), "bias": jnp.zeros(n)})
        self.norm = brainstate.ParamState({"scale": jnp.ones(n), "bias": jnp.zeros(n)})
        self.h = brainstate.HiddenState(jnp.zeros(n))
        self.c = brainstate.HiddenState(jnp.zeros(n))

    def update(self, x):
        gates, linear, norm = self.gates.value, self.linear.value, self.norm.value
        both = jnp.concatenate([x, self.h.value], axis=-1)
        i, g, f, o = jnp.split(both @ gates["weight"] + gates["bias"], 4, axis=-1)
        self.c.value = jax.nn.sigmoid(f + 1.0) * self.c.value + jax.nn.sigmoid(i) * jnp.tanh(g)
        self.h.value = jax.nn.sigmoid(o) * jnp.tanh(self.c.value)
        y = x + self.h.value @ linear["weight"] + linear["bias"]
        return jax.nn.standardize(y, epsilon=1e-6) * norm["scale"] + norm["bias"]


def build(layers: int = 24, size: int = 128) -> brainstate.nn.Module:
    """Build the stack; nothing is drawn before its states are initialized.

    Parameters
    ----------
    layers
        Number of blocks, each with 5 states of 8 arrays.
    size
        Number of units of each block, and of inputs and outputs.

    Returns
    -------
    brainstate.nn.Module
        Maps the input x[size] of one time step to the output y[size].
    """
    return brainstate.nn.Sequential(*[Block(size) for _ in range(layers)])


def main(lanes: int = 16, steps: int = 10) -> None:
    shardinit.emulate_cpu(8)
    net = build()
    result = shardinit.shard_new_states(net, axis_size=lanes)
    print(result.receipt)

    # Every lane sees the same input; the lanes of states and outputs stay where they are.
    step = brainstate.transform.vmap2(
        net, in_axes=None, axis_size=lanes, state_in_axes=result.states, state_out_axes=result.states
    )
    run = brainstate.transform.jit(lambda xs: brainstate.transform.for_loop(step, xs))
    started = time.perf_counter()
    outputs = jax.block_until_ready(run(brainstate.random.normal(size=(steps, net[0].size))))
    print(f"{steps} steps of {lanes} lanes: {time.perf_counter() - started:.1f} s with compilation")
    print(f"outputs [steps, lanes, units]: {outputs.shape}, which differ by lane: {outputs.std(axis=1).mean():.2f}")
    print(f"hidden state of one block: {net[0].h.value.sharding}")


if __name__ == "__main__":
    main()
