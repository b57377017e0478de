"""An ensemble of balanced excitatory-inhibitory networks, initialized and simulated with its lanes sharded.

The network is that of Vogels and Abbott (2005), J. Neurosci. 25(46), in the form and with the parameters of
benchmark 1 of Brette et al. (2007), J. Comput. Neurosci. 23(3). It gets no input: the random initial conductances
start an irregular activity that sustains itself. The connections are made once and shared by all lanes; each
lane draws its own membrane potentials and conductances.

    python examples/ei_network.py --axis-size 64 --devices 8 --duration 100 --output examples/ei_raster.png
"""

import argparse
import time
from pathlib import Path

import brainevent
import brainstate
import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
from braintools.init import Normal
from matplotlib.figure import Figure

import shardinit

DT = 0.1 * u.ms
CONTACTS = 80  # of each neuron: 2% of 4000. Smaller networks keep the number, and so the activity.


class EINetwork(brainstate.nn.Module):
    """Leaky integrate-and-fire neurons, excitatory ``E`` and inhibitory ``I``, each projecting to both."""

    def __init__(self, exc: int, inh: int):
        super().__init__()
        self.E, self.I = _neurons(exc), _neurons(inh)
        # Weight, time constant, reversal potential and initial conductance of the synapses.
        excitation = 6.0 * u.nS, 5.0 * u.ms, 0.0 * u.mV, Normal(40.0 * u.nS, 15.0 * u.nS)
        inhibition = 67.0 * u.nS, 10.0 * u.ms, -80.0 * u.mV, Normal(200.0 * u.nS, 120.0 * u.nS)
        probability = min(1.0, CONTACTS / (exc + inh))
        self.projections = [
            _projection(self.E, self.E, probability, *excitation, seed=0),
            _projection(self.E, self.I, probability, *excitation, seed=1),
            _projection(self.I, self.E, probability, *inhibition, seed=2),
            _projection(self.I, self.I, probability, *inhibition, seed=3),
        ]

    def update(self, step):
        """Advance by one time step; returns which neurons of ``E`` and of ``I`` spike."""
        with brainstate.environ.context(t=step * DT, dt=DT):
            exc, inh = self.E.get_spike() != 0, self.I.get_spike() != 0
            for projection, spikes in zip(self.projections, (exc, exc, inh, inh), strict=True):
                projection(spikes)
            return self.E() != 0, self.I() != 0


def _neurons(size: int):
    import brainpy.state  # not above: brainpy 2.8 starts JAX's backend, after which no devices can be emulated

    start = Normal(-65.0 * u.mV, 5.0 * u.mV)
    voltages = {"V_rest": -60.0 * u.mV, "V_reset": -60.0 * u.mV, "V_th": -50.0 * u.mV, "V_initializer": start}
    return brainpy.state.LIFRef(
        size, R=100.0 * u.Mohm, tau=20.0 * u.ms, tau_ref=5.0 * u.ms, spk_reset="hard", **voltages
    )


def _projection(pre, post, probability, weight, tau, reversal, start, *, seed):
    import brainpy.state

    (n_pre,), (n_post,) = pre.varshape, post.varshape
    return brainpy.state.AlignPostProj(
        comm=brainstate.nn.EventFixedNumConn(n_pre, n_post, round(probability * n_post), weight, seed=seed),
        syn=brainpy.state.Expon.desc(n_post, tau=tau, g_initializer=start),
        out=brainpy.state.COBA.desc(E=reversal),
        post=post,
    )


def build(exc: int = 3200, inh: int = 800) -> brainstate.nn.Module:
    """Build the network and its connections; potentials and conductances are drawn by ``init_state``.

    Parameters
    ----------
    exc, inh
        Number of excitatory and of inhibitory neurons; with fewer than 1000 in all, activity may die out.

    Returns
    -------
    brainstate.nn.Module
        Maps the number of a time step of 0.1 ms to the spikes bool[exc] and bool[inh].
    """
    return EINetwork(exc, inh)


def simulate(net, states, lanes: int, steps: int, shown: np.ndarray):
    """Run all lanes; returns the spikes bool[steps, shown, neurons] of those shown and the rates of all in Hz."""
    update = brainstate.transform.vmap2(net, in_axes=None, axis_size=lanes, state_in_axes=states, state_out_axes=states)

    def step(i):
        exc, inh = update(i)
        return exc[shown], inh[shown], exc.mean(axis=1), inh.mean(axis=1)

    run = brainstate.transform.jit(lambda: brainstate.transform.for_loop(step, jnp.arange(steps)))
    exc, inh, *fractions = jax.tree.map(np.asarray, run())
    return exc, inh, [f.mean(axis=0) / DT.to_decimal(u.second) for f in fractions]


def plot(exc, inh, rates, shown, path: str) -> None:
    figure = Figure(figsize=(10, 7), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True, sharey=True).flat
    for k, (lane, ax) in enumerate(zip(shown, axes, strict=False)):
        for spikes, first, color in ((exc, 0, "tab:blue"), (inh, exc.shape[2], "tab:red")):
            times, neurons = np.nonzero(spikes[:, k])
            ax.scatter(times * DT.to_decimal(u.ms), first + neurons, s=1, color=color, linewidths=0)
        ax.set_title(f"lane {lane}: excitatory {rates[0][lane]:.1f} Hz, inhibitory {rates[1][lane]:.1f} Hz")
    figure.supxlabel("time (ms)")
    figure.supylabel("neuron (blue: excitatory, red: inhibitory)")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--axis-size", type=int, default=64, help="number of lanes")
    parser.add_argument("--devices", type=int, default=8, help="number of CPU devices to emulate")
    parser.add_argument("--duration", type=float, default=100.0, help="simulated time in ms")
    parser.add_argument("--exc", type=int, default=3200, help="number of excitatory neurons")
    parser.add_argument("--inh", type=int, default=800, help="number of inhibitory neurons")
    raster = Path(__file__).with_name("ei_raster.png")
    parser.add_argument("--output", default=str(raster), help="where to write the raster plot")
    arguments = parser.parse_args()
    lanes, steps = arguments.axis_size, round(arguments.duration / DT.to_decimal(u.ms))

    shardinit.emulate_cpu(arguments.devices)
    # XLA splits the kernels in plain JAX by lane; a Numba kernel it can only run on all lanes gathered.
    brainevent.config.set_backend("cpu", "jax_raw")
    brainstate.random.seed(2005)
    net = build(arguments.exc, arguments.inh)
    result = shardinit.shard_new_states(net, axis_size=lanes)
    print(result)

    started = time.perf_counter()
    shown = np.linspace(0, lanes, min(lanes, 4), endpoint=False, dtype=int)
    exc, inh, rates = simulate(net, result.states, lanes, steps, shown)
    print(f"{steps} steps of {lanes} lanes: {time.perf_counter() - started:.1f} s with compilation")
    print(f"mean rates of all lanes: excitatory {rates[0].mean():.1f} Hz, inhibitory {rates[1].mean():.1f} Hz")
    potentials = u.get_mantissa(net.E.V.value)
    assert potentials.sharding.shard_shape(potentials.shape)[0] * arguments.devices == lanes, potentials.sharding
    plot(exc, inh, rates, shown, arguments.output)
    print(f"raster of lanes {', '.join(map(str, shown))}: {arguments.output}")


if __name__ == "__main__":
    main()
