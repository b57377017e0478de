"""The default device is what JAX says it is; the drop-ins plan for it."""

import types

import brainstate
import jax
import pytest

import shardinit
from shardinit.backend import ambient

CARD = types.SimpleNamespace(
    platform="gpu",
    process_index=0,
    device_kind="NVIDIA H100 80GB HBM3",
    memory_stats=lambda: {"bytes_limit": 60 << 30},
)


def test_a_gpu_is_planned_as_one(monkeypatch):
    monkeypatch.setattr(jax, "local_devices", lambda backend=None: [CARD])
    found = shardinit.Topology.default_device()
    assert (found.platform, found.devices, found.mesh_axes, found.usable_bytes) == ("gpu", 1, (), 60 << 30)
    spec = shardinit.StateSpec(("v",), "ShortTermState", (shardinit.LeafSpec((8,), "float32", 4),))
    assert 0 < shardinit.plan([spec], found, axis_size=4).memory_budget < 60 << 30  # a part is kept free


def test_the_drop_ins_plan_for_it(monkeypatch):
    class Drawn(brainstate.nn.Module):
        def init_state(self):
            self.v = brainstate.ShortTermState(brainstate.random.uniform(size=(4,)))

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")  # where JAX is told to compute on the CPU all the same
    with jax.default_device(jax.devices("cpu")[3]):
        assert ambient.default_device() == jax.devices("cpu")[3]
        assert shardinit.Topology.default_device().platform == "cpu"
        module = Drawn()
        shardinit.vmap2_new_states(module, {}, axis_size=4)
    assert module.v.value.devices() == {jax.devices("cpu")[3]}


def test_a_name_is_no_platform():
    with pytest.raises(ValueError, match=r"Topology\.named\('h100:\.\.\.'\)"):
        shardinit.Topology("h100", 8)
