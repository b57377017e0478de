"""Compile a small program for each of the memory figures, and print what the compiler implies beside what we have.

::

    python scripts/memory_figures.py                 the CPU's compiler
    python scripts/memory_figures.py h100:1 v5e:2x2  those of other targets, if installed (scripts/compilers.sh)

A prediction grows by a fixed number of bytes with each figure, so the figure that would predict the compiler's bytes
exactly is known from two predictions. With the right figure "predicted" is at least 1, and not far above.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import brainstate
import jax
import jax.numpy as jnp
from brainstate import ParamState
from rich.console import Console
from rich.table import Table

import shardinit
from shardinit.planner import memory_figures
from shardinit.planner.device_bytes import platform_family
from shardinit.spec.certificate import PieceCertificate

R = brainstate.random
LANES = 4
SIDE = 64
LARGE = 1 << 16
ORTHOGONAL = jax.nn.initializers.orthogonal()


def _module(make: Callable[[], Any]) -> Any:
    class Program(brainstate.nn.Module):
        def init_state(self) -> None:
            self.made = ParamState(make())

    return Program()


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of the table, by the place where it is, and a program whose memory depends on it."""

    name: str
    table: str
    keys: tuple[str, ...]
    make: Callable[[], Any]
    most: float

    def value(self, platform: str) -> float:
        """What we have."""
        found = getattr(memory_figures, self.table)
        for key in self.keys:
            found = found[platform if key == "platform" else key]
        return found

    def changed(self, platform: str, by: float) -> Any:
        """Have it changed, inside."""
        holder = getattr(memory_figures, self.table)
        for key in self.keys[:-1]:
            holder = holder[platform if key == "platform" else key]
        last = platform if self.keys[-1] == "platform" else self.keys[-1]
        return mock.patch.dict(holder, {last: holder[last] + by})


def _sorted() -> jax.Array:
    return jnp.sort(R.normal(size=(LARGE,)) * 2.0)


def _spd() -> jax.Array:
    drawn = R.normal(size=(SIDE, SIDE))
    return jnp.linalg.cholesky(drawn @ drawn.T + SIDE * jnp.eye(SIDE))


# Of each, the program that the figure was fitted for, and how far above the compiler its prediction may be on a CPU:
# the same figure serves programs that need less.
FIGURES = (
    Figure("scratch of gamma", "SCRATCH_WORDS", ("random_gamma", "platform"), lambda: R.gamma(2.0, size=(1024,)), 1.1),
    Figure("copies of qr", "COPIES", ("platform", "qr"), lambda: ORTHOGONAL(R.split_key(), (SIDE, SIDE)), 1.6),
    Figure("copies of cholesky", "COPIES", ("platform", "cholesky"), _spd, 1.1),
    Figure("copies of while", "COPIES", ("platform", "while"), lambda: R.poisson(3.0, size=(1024,)), 1.4),
    Figure("copies of sort", "COPIES_OF_SORTS", ("platform",), _sorted, 1.3),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure on one target: ours, what the compiler implies, and how the prediction stands to the compiler."""

    figure: str
    ours: float
    implied: float
    predicted: float


def measure(figure: Figure, topology: str) -> Measured:
    """Hold a figure against the compiler of a topology."""
    platform = platform_family(shardinit.Topology.named(topology).platform)
    piece = _largest(figure, topology)
    peak = float(piece.peak_bytes)
    ours, more = float(piece.predicted_peak_bytes or 0), 0.0
    with figure.changed(platform, 1):
        more = float(_predicted(figure, topology))
    slope = more - ours
    value = float(figure.value(platform))
    return Measured(figure.name, value, value + (peak - ours) / slope if slope else float("nan"), ours / peak)


def _largest(figure: Figure, topology: str) -> PieceCertificate:
    certificate = _plan(figure, topology).certify(workers=1)
    return max((p for p in certificate.pieces if p.strategy != "keys"), key=lambda p: p.peak_bytes)


def _predicted(figure: Figure, topology: str) -> int:
    step = max(_plan(figure, topology).steps, key=lambda s: s.peak)
    return (
        step.made // max(1, len(step.pieces))
        + step.temporaries
        + memory_figures.PIECE_BYTES[platform_family(shardinit.Topology.named(topology).platform)]
    )


def _plan(figure: Figure, topology: str) -> shardinit.InitPlan:
    return shardinit.plan(shardinit.discover(_module(figure.make)), topology, axis_size=LANES)


def measured(topologies: list[str]) -> Iterator[tuple[str, Measured]]:
    """Yield every figure on every topology."""
    for topology in topologies:
        for figure in FIGURES:
            yield topology, measure(figure, topology)


def main(topologies: list[str]) -> None:
    """Print the table."""
    table = Table()
    for name in ("target", "figure", "ours", "the compiler's", "predicted / compiled"):
        table.add_column(name)
    for topology, found in measured(topologies or ["cpu:1"]):
        table.add_row(topology, found.figure, f"{found.ours:g}", f"{found.implied:.2f}", f"{found.predicted:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
