"""CPU devices share the memory of their host: that is their budget."""

import brainstate
import jax
import pytest
from brainstate import ParamState

import shardinit
from shardinit.backend import host_memory as host
from shardinit.backend import topologies

R = brainstate.random
MIB = 1 << 20


class Weights(brainstate.nn.Module):
    def init_state(self):
        self.w = ParamState(R.normal(size=(1 << 18,)))


@pytest.fixture
def small_host(monkeypatch):
    """A machine with 64 MiB."""
    monkeypatch.setattr(topologies, "host_memory", lambda: 64 * MIB)


@pytest.mark.parametrize(
    ("own", "file", "text", "limit"),
    [
        ("0::/a/b\n", "a/b/memory.max", "5000", 5000),
        ("0::/a/b\n", "a/memory.max", "6000", 6000),
        ("0::/\n", "memory.max", "7000", 7000),
        ("0::/a/b\n", "a/b/memory.max", "max", 10_000),
        ("9:name=systemd:/\n4:cpu,memory:/a\n", "memory/a/memory.limit_in_bytes", "5000", 5000),
        ("4:memory:/docker/1\n", "memory/memory.limit_in_bytes", "6000", 6000),
        ("4:cpu:/a\n", "memory/a/memory.limit_in_bytes", "5000", 10_000),
        ("0::/a\n", "a/memory.max", "9223372036854771712", 10_000),
    ],
)
def test_the_limit_of_a_container_counts(monkeypatch, tmp_path, own, file, text, limit):
    class Machine:
        total = 10_000

    (tmp_path / "own").write_text(own)
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(text)
    monkeypatch.setattr(host, "GROUPS", tmp_path)
    monkeypatch.setattr(host, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(host.psutil, "virtual_memory", lambda: Machine)
    assert host.host_memory() == limit


def test_each_cpu_device_has_its_share_of_the_host(small_host):
    devices = jax.devices()
    assert shardinit.Topology.local().usable_bytes == 8 * MIB
    assert shardinit.Topology.from_devices(devices[:2]).usable_bytes == 32 * MIB
    assert shardinit.Topology.from_mesh(jax.make_mesh((4,), ("lanes",))).usable_bytes == 16 * MIB
    assert topologies.emulated_topology(16).usable_bytes == 4 * MIB
    assert shardinit.Topology.named("cpu:8").usable_bytes is None


def test_what_the_host_cannot_hold_is_refused_before_anything_is_made(small_host):
    module = Weights()
    with pytest.raises(shardinit.MemoryBudgetError, match=r"memory_budget=7\.6 MiB.*raise memory_budget to \d+ bytes"):
        shardinit.shard_new_states(module, axis_size=128)
    assert not hasattr(module, "w")
    program = shardinit.discover(module)
    assert shardinit.plan(program, "cpu:8", axis_size=128).memory_budget is None


def test_the_default_device_has_the_memory_of_the_host(small_host):
    with pytest.raises(shardinit.MemoryBudgetError, match=r"memory_budget=60\.8 MiB"):
        shardinit.vmap2_new_states(Weights(), {}, axis_size=128)


def test_the_limit_of_the_host_can_be_turned_off(small_host):
    result = shardinit.shard_new_states(Weights(), axis_size=64, memory_budget="unlimited")
    assert result.plan.memory_budget is None
    assert result.plan.bytes_per_device == 8 * MIB


def test_devices_of_several_processes_share_their_host(monkeypatch, small_host):
    told = ['["a", 1000, 2]', '["a", 1000, 3]', '["b", 300, 1]']
    monkeypatch.setattr(topologies, "is_shared", lambda ranks: True)
    monkeypatch.setattr(topologies, "exchange", lambda name, text, ranks: told)
    assert shardinit.Topology.local().usable_bytes == 200
