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


@pytest.mark.parametrize("topology", ["v5e:4x8", "v5e:2x4", "2xv5e:4x8", "v5p:4x4x8", "v4:2x2x2"])
def test_neighbours_in_the_torus_are_neighbours_in_the_mesh(topology):
    """Every mesh of whole slices, in a process of its own: libtpu is loaded there."""
    code = f"""
import dataclasses
import numpy as np
from jax.experimental import topologies
import shardinit
from shardinit.backend import mesh
from shardinit.certifier.targets import target_of
from shardinit.planner.meshes import divisors

topology = shardinit.Topology.named({topology!r})
devices = list(topologies.get_topology_desc(**target_of(topology).topology).devices)
state = shardinit.StateSpec(("w",), "ParamState", (shardinit.LeafSpec((1024, 1024), "float32", 4),))
planned = shardinit.plan([state], topology, axis_size=topology.devices)
for model in divisors(topology.fast_devices):
    lanes = topology.devices // model
    for copies in divisors(lanes):
        axes = (("lanes", lanes // copies), ("copies", copies), ("model", model))
        mesh.jax.devices = lambda: devices[::-1]  # in no order
        made = mesh.make_mesh(dataclasses.replace(planned, mesh_axes=axes))
        assert tuple(made.shape.items()) == axes
        assert len({{d.id for d in made.devices.flat}}) == topology.devices
        rows = made.devices.reshape(-1, model)  # single lanes stay in a slice, side by side
        assert all(len({{getattr(d, "slice_index", 0) for d in row}}) == 1 for row in rows)
        if model == 2:
            steps = [np.abs(np.subtract(a.coords, b.coords)) for a, b in rows]
            assert all(step.sum() <= 1 or max(step) == max(a.coords) for step in steps), steps
some = mesh.make_mesh(dataclasses.replace(planned, mesh_axes=(("lanes", 3),)))  # no block of the torus
assert some.devices.shape == (3,)
"""
    environment = {**os.environ, "TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost"}
    environment |= {"TPU_ACCELERATOR_TYPE": "v5litepod-8", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
