"""Certificates by the real TPU and CUDA compilers, without a TPU or GPU. Run by ``scripts/targets.sh``.

They need ``libtpu``, ``jax-cuda12-plugin``, ``jax-cuda12-pjrt`` and ``nvidia-cuda-nvcc-cu12``, so the default
test run leaves this folder out (``testpaths``), rather than skip.
"""

import os
import subprocess
import sys
from importlib.resources import files

import brainstate
import jax
import jax.numpy as jnp
import pytest
from brainstate import ParamState

import shardinit
from tests.test_examples import load

TOPOLOGIES = ["h100:4x8", "h200:1x8", "a100:2x8", "v5e:4x8", "v5p:8x16x16", "v6e:16x16", "2xv5e:4x8"]


def planned_for(module, topology, axis_size, **options):
    return shardinit.plan(shardinit.discover(module), topology, axis_size=axis_size, **options)


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("name", ["mlp96", "deep_rnn", "ei_network"])
def test_prediction_of_the_examples(name, topology):
    lanes = 8 * shardinit.Topology.named(topology).devices
    certificate = planned_for(load(name).build(), topology, lanes).certify()
    assert certificate.passed, certificate.failures
    assert certificate.prediction_holds, (certificate.predicted_peak_bytes, certificate.peak_bytes)
    assert all(piece.is_shard_local for piece in certificate.pieces)
    assert all(piece.seconds > 0 for piece in certificate.pieces)


class Large(brainstate.nn.Module):
    def init_state(self):
        self.w = ParamState(brainstate.random.normal(size=(1024, 1024)) * 0.02)
        self.q = ParamState(jax.nn.initializers.orthogonal()(brainstate.random.split_key(), (256, 256)))
        self.f = ParamState(jnp.fft.rfft(brainstate.random.normal(size=(2048, 512))).real)


@pytest.mark.parametrize("topology", ["h100:1x8", "v5e:2x4"])
def test_single_lanes_split_over_model(topology):
    certificate = planned_for(Large(), topology, 12).certify()
    assert certificate.passed, certificate.failures
    assert {piece.strategy for piece in certificate.pieces} >= {"gspmd", "shard_map"}
    assert all(piece.is_shard_local for piece in certificate.pieces if piece.strategy == "shard_map")


def test_an_own_card(tmp_path):
    card = tmp_path / "mine.txtpb"
    card.write_text((files("shardinit.certifier") / "cards" / "h200.txtpb").read_text())
    assert planned_for(Large(), "h100:1x8", 8).certify(card=card).passed
    card.write_text("this is no card {")
    certificate = planned_for(Large(), "h100:1x8", 8).certify(card=card)
    assert not certificate.passed
    assert all(piece.error for piece in certificate.pieces)


def test_tpu_names_what_does_not_fit():
    planned = planned_for(load("mlp96").build(), "v5e:2x2", 4 * 400, memory_budget="unlimited")
    certificate = planned.certify()
    assert certificate.peak_bytes > shardinit.Topology.named("v5e:2x2").usable_bytes
    with pytest.raises(shardinit.MemoryBudgetError):
        planned_for(load("mlp96").build(), "v5e:2x2", 4 * 400)


def test_without_any_network():
    """Nothing is asked of a metadata server or another host: it works where there is no network at all."""
    command = ["unshare", "--net", sys.executable, "-m", "shardinit.cli.main", "plan", "examples/ei_network.py:build"]
    for topology in ("v5e:4x8", "h100:1x8"):
        done = subprocess.run(
            [*command, "--axis-size", "64", "--topology", topology, "--certify"],
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "PASS" in done.stdout


@pytest.mark.parametrize(("topology", "lanes"), [("v5e:4x8", 32), ("v5e:4x8", 8), ("2xv5e:4x8", 64)])
def test_neighbours_in_the_torus_are_neighbours_in_the_mesh(topology, lanes):
    """In a process of its own: libtpu is loaded there."""
    code = f"""
import jax
import numpy as np
from jax.experimental import topologies
import shardinit
from shardinit.backend import mesh
from shardinit.certifier.targets import target_of
from shardinit.spec.states import LeafSpec, StateSpec

topology = shardinit.Topology.named({topology!r})
description = topologies.get_topology_desc(**target_of(topology).topology)
mesh.jax.devices = lambda: list(description.devices)[::-1]  # in no order
state = StateSpec(("w",), "ParamState", (LeafSpec((1024, 1024), "float32", 4),))
planned = shardinit.plan([state], topology, axis_size={lanes})
made = mesh.make_mesh(planned)
assert tuple(made.shape.items()) == planned.mesh_axes
assert len({{d.id for d in made.devices.flat}}) == planned.mesh_devices
rows = made.devices.reshape(-1, made.devices.shape[-1])
if rows.shape[1] > 1 and "model" in made.shape:  # single lanes stay in a slice, side by side
    assert all(len({{getattr(d, "slice_index", 0) for d in row}}) == 1 for row in rows)
    steps = [np.abs(np.subtract(a.coords, b.coords)).sum() for row in rows for a, b in zip(row, row[1:])]
    assert max(steps) <= 2, steps
first = made.devices.reshape(made.devices.shape[0], -1)[: made.devices.shape[0] // 2]
assert len({{getattr(d, "slice_index", 0) for d in first.flat}}) == 1  # each half of the lanes is in one slice
"""
    environment = {**os.environ, "TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost"}
    environment |= {"TPU_ACCELERATOR_TYPE": "v5litepod-8", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
