"""The compiler: unique programs, no collectives, checks apart, nothing that grows with depth."""

import re
import subprocess
import sys

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brainstate import ParamState, ShortTermState

import shardinit
from shardinit.lane.pieces import LARGEST_UNION
from tests.conftest import mesh_of
from tests.modules import Draws, Nested, Normalized, Orthogonal, Values
from tests.reference import assert_like_brainstate

COLLECTIVE = re.compile(r"\b(all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter|collective-broadcast)")


class Blocks(brainstate.nn.Module):
    def __init__(self, depth):
        super().__init__()
        self.depth = depth

    def init_state(self):
        self.w = [ParamState(brainstate.random.normal(size=(8, 16)) * (0.1 + 0.01 * i)) for i in range(self.depth)]
        self.b = [ParamState(jnp.zeros(16)) for _ in range(self.depth)]
        self.x = [ParamState(brainstate.random.truncated_normal(-2.0, 2.0, size=(8, 8))) for _ in range(self.depth)]


def compiled_for(module, axis_size=8, mesh=None, **options):
    mesh = mesh_of(8) if mesh is None else mesh
    program = shardinit.discover(module)
    planned = shardinit.plan(program, shardinit.Topology.from_mesh(mesh), axis_size=axis_size, **options)
    return shardinit.compile(program, planned, mesh).wait()


@pytest.mark.parametrize("depth", [2, 40])
def test_programs_do_not_grow_with_depth(depth):
    compiled = compiled_for(Blocks(depth))
    assert sum(p.strategy == "shard_map" for p in compiled.programs) == 3
    assert len(compiled.programs) <= 5


def test_equal_modules_compile_once():
    compiled_for(Blocks(3))
    again = compiled_for(Blocks(3))
    assert again.cached == len(again.programs) + len(again.keys)


@pytest.mark.parametrize("make", [Draws, Orthogonal, Values, Nested, Normalized, lambda: Blocks(2)])
@pytest.mark.parametrize("shape", [(8,), (4, 2)], ids=str)
def test_shard_map_programs_have_no_collective(make, shape):
    compiled = compiled_for(make(), axis_size=16, mesh=mesh_of(*shape))
    texts = [p.executable.result().as_text() for p in compiled.programs if p.strategy == "shard_map"]
    texts += [f.result().as_text() for f in compiled.keys.values()]
    assert texts
    for text in texts:
        assert not COLLECTIVE.search(text)


def test_collectives_would_be_found():
    sharded = jax.sharding.NamedSharding(mesh_of(8), jax.sharding.PartitionSpec("lanes"))
    text = jax.jit(lambda x: x.sum(), in_shardings=sharded).lower(jnp.ones(8)).compile().as_text()
    assert COLLECTIVE.search(text)


def test_keys_are_split_over_the_lanes():
    compiled = compiled_for(Blocks(2), axis_size=64)
    (future,) = compiled.keys.values()
    (sharding,) = jax.tree.leaves(future.result().output_shardings)
    assert tuple(sharding.spec)[:2] == (None, "lanes")


class OneBase(brainstate.nn.Module):
    """A heavy value that more states use than may share a piece."""

    def __init__(self, count):
        super().__init__()
        self.count = count

    def init_state(self):
        base = brainstate.random.normal(size=(20, 10))
        self.states = [ParamState(base * (i + 1.0) + 0.5) for i in range(self.count)]
        self.base = ParamState(base)


@pytest.mark.parametrize("count", [2, LARGEST_UNION, LARGEST_UNION + 1, 60])
def test_shared_work(count):
    _, result = assert_like_brainstate(
        lambda: OneBase(count), lambda m: shardinit.shard_new_states(m, axis_size=8), axis_size=8
    )
    assert result.receipt.programs <= 4


class Chain(brainstate.nn.Module):
    """Each state from the one before, and a scalar that goes through all layers."""

    def init_state(self):
        value, scale = brainstate.random.normal(size=(12, 12)), jnp.asarray(1.0)
        self.states = []
        for _ in range(30):
            scale = scale * 0.9
            value = jnp.tanh(value) * scale
            self.states.append(ParamState(value))


def test_chains_stay_small():
    compiled = compiled_for(Chain())
    assert max(len(p.program.structure.equations) for p in compiled.programs) < 100
    assert_like_brainstate(Chain, lambda m: shardinit.shard_new_states(m, axis_size=8), axis_size=8)


def test_effects_inside_init_are_run(capfd):
    class Prints(brainstate.nn.Module):
        def init_state(self):
            jax.debug.print("once")
            x = brainstate.random.normal(size=())
            jax.debug.print("lane {}", x)
            self.v = ShortTermState(x)

    module = Prints()
    shardinit.shard_new_states(module, axis_size=8)
    jax.effects_barrier()
    lines = capfd.readouterr().out.split("\n")
    assert lines.count("once") == 1
    printed = sorted(float(line.split()[1]) for line in lines if line.startswith("lane"))
    np.testing.assert_allclose(printed, sorted(np.asarray(module.v.value)), rtol=1e-5)


def test_lanes_of_qr_on_emulated_devices_do_not_deadlock():
    code = (
        "import shardinit; shardinit.emulate_cpu(8)\n"
        "from tests.modules import Orthogonal\n"
        "m = Orthogonal(256); r = shardinit.shard_new_states(m, axis_size=64)\n"
        "print(m.weight.value.shape, len(m.weight.value.sharding.device_set))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert done.stdout == "(64, 256, 256) 8\n", done.stderr


def test_emulate_cpu_after_the_backend_has_started():
    jax.devices()
    with pytest.raises(shardinit.BackendStartedError, match=r"n=4.*already started"):
        shardinit.emulate_cpu(4)
    shardinit.emulate_cpu(8)  # as a cell of a notebook that runs again
    for bad, error in ((0, ValueError), (True, TypeError), ("8", TypeError)):
        with pytest.raises(error):
            shardinit.emulate_cpu(bad)


def test_persistent_cache_is_used(tmp_path):
    code = (
        "import jax, shardinit; shardinit.emulate_cpu(8)\n"
        "from tests.compiler.test_compile import Blocks\n"
        f"jax.config.update('jax_compilation_cache_dir', {str(tmp_path)!r})\n"
        "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)\n"
        "hits = []\n"
        "jax.monitoring.register_event_listener(lambda e, **k: hits.append(e) if e.endswith('cache_hits') else None)\n"
        "shardinit.shard_new_states(Blocks(2), axis_size=8)\n"
        "print(len(hits))\n"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240) for _ in range(2)]
    first, second = (int(r.stdout.splitlines()[-1]) for r in runs)
    assert second >= first + 4
