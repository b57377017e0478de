"""A deep multilayer perceptron whose 480 states are made in ``init_state``.

This is work W1 of the benchmarks: 96 blocks of two weights, two biases and a hidden activity, 48 MiB per
lane. The initialization draws every weight, so the time is that of tracing, compiling and drawing alone.
"""

import brainstate
import jax.numpy as jnp

import shardinit

WIDTH, EXPANSION = 128, 512


class Block(brainstate.nn.Module):
    """Two-layer perceptron with a residual connection and a leaky memory of its output."""

    def init_state(self):
        self.w1 = brainstate.ParamState(brainstate.random.normal(size=(WIDTH, EXPANSION)) * 0.02)
        self.b1 = brainstate.ParamState(jnp.zeros(EXPANSION))
        self.w2 = brainstate.ParamState(brainstate.random.normal(size=(EXPANSION, WIDTH)) * 0.02)
        self.b2 = brainstate.ParamState(jnp.zeros(WIDTH))
        self.h = brainstate.HiddenState(brainstate.random.uniform(size=(WIDTH,)))

    def update(self, x):
        hidden = brainstate.nn.relu(x @ self.w1.value + self.b1.value)
        y = x + hidden @ self.w2.value + self.b2.value
        self.h.value = 0.9 * self.h.value + 0.1 * y
        return self.h.value


def build(layers: int = 96) -> brainstate.nn.Module:
    """Build the perceptron; nothing is drawn before its states are initialized.

    Parameters
    ----------
    layers
        Number of blocks, each with the 5 states w1[128, 512], b1[512], w2[512, 128], b2[128] and h[128].

    Returns
    -------
    brainstate.nn.Module
        Maps x[128] to y[128].
    """
    return brainstate.nn.Sequential(*[Block() for _ in range(layers)])


def main() -> None:
    shardinit.emulate_cpu(8)
    result = shardinit.shard_new_states(build(), axis_size=8)
    print(result.receipt)


if __name__ == "__main__":
    main()
