"""The private names that we depend on are there and behave as we need; this fails when they move."""

import ast
import subprocess
import sys
from pathlib import Path

import brainstate
import jax
import numpy as np

import shardinit
from shardinit import private_jax
from shardinit.discover import private_brainstate

ROOT = Path(shardinit.__file__).parent


def test_private_names_are_imported_in_one_file_each():
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            modules += [a.name for a in node.names] if isinstance(node, ast.Import) else []
            for module in modules:
                if module.startswith("jax._src"):
                    assert path.name == "private_jax.py"
                if module.startswith("brainstate.") and "._" in module:
                    assert path.name == "private_brainstate.py"


def test_jax_names():
    assert all(hasattr(private_jax, name) for name in private_jax.__all__)
    assert private_jax.trace_ctx.trace is private_jax.eval_trace
    seen = []
    jax.jit(lambda x: seen.append(private_jax.trace_ctx.trace) or x)(1)
    assert seen[0] is not private_jax.eval_trace
    with private_jax.extend_axis_env_nd([("i", 3)]):
        assert jax.lax.axis_size("i") == 3
    assert private_jax.backends_are_initialized()
    mesh = jax.make_mesh((2,), ("a",))
    with jax.set_mesh(mesh):
        assert private_jax.get_concrete_mesh() == mesh


def test_the_coordination_service_keeps_texts():
    """What ``shardinit.exchange`` needs of the client, tried with a job of one process, in a process of its own."""
    code = """
import socket
import jax
from shardinit.private_jax import distributed_state
with socket.socket() as found:
    found.bind(("127.0.0.1", 0))
    port = found.getsockname()[1]
assert distributed_state.client is None
jax.config.update("jax_enable_preemption_service", False)
jax.config.update("jax_check_proxy_envs", False)
jax.distributed.initialize(f"127.0.0.1:{port}", 1, 0, cluster_detection_method="deactivate")
client = distributed_state.client
client.key_value_set("a", "1")
assert client.blocking_key_value_get("a", 1000) == client.key_value_try_get("a") == "1"
for attempt in (lambda: client.key_value_set("a", "2"), lambda: client.key_value_try_get("b")):
    try:
        attempt()
    except jax.errors.JaxRuntimeError:
        continue
    raise AssertionError("a key that is there is set again, or one that is not is found")
try:
    client.blocking_key_value_get("b", 100)
except jax.errors.JaxRuntimeError as error:
    assert "DEADLINE_EXCEEDED" in str(error)
else:
    raise AssertionError("no deadline")
jax.distributed.shutdown()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_brainstate_names():
    assert private_brainstate.TRACE_CONTEXT.get_trace_stack_level() == 0
    with brainstate.StateTraceStack():
        assert private_brainstate.TRACE_CONTEXT.get_trace_stack_level() == 1
    assert private_brainstate.INIT_NO_BATCHING == "INIT_NO_BATCHING"
    assert issubclass(private_brainstate.NonBatchState, brainstate.ShortTermState)
    assert private_brainstate.StateJaxTracer().is_valid()
    state = brainstate.ShortTermState(1)
    assert {"_value", "_been_writen", "_level", "_trace_state", "_hooks_manager", "_source_info"} <= set(vars(state))


def test_random_chain_of_brainstate():
    """Lane keys, and the key that is left behind, as brainstate derives them."""

    class Draws(brainstate.nn.Module):
        def init_state(self):
            self.key = brainstate.ShortTermState(brainstate.random.split_key())

    brainstate.random.seed(3)
    key = brainstate.random.DEFAULT.value
    module = Draws()
    brainstate.transform.vmap2_new_states(module, {}, axis_size=4)
    lanes = jax.random.split(key, 5)[1:]
    expected = jax.vmap(lambda k: jax.random.split(k)[1])(lanes)
    np.testing.assert_array_equal(jax.random.key_data(module.key.value), jax.random.key_data(expected))
    after = jax.random.split(jax.random.split(key, 5)[0])[1]
    np.testing.assert_array_equal(jax.random.key_data(brainstate.random.DEFAULT.value), jax.random.key_data(after))


def test_a_key_of_a_split_is_a_fold_in():
    """The rule by which a device derives the keys of its own lanes only."""
    key = jax.random.key(9)
    folded = jax.vmap(lambda i: jax.random.fold_in(key, i))(jax.numpy.arange(7))
    for count in (7, 12):
        split = jax.random.key_data(jax.random.split(key, count))[:7]
        np.testing.assert_array_equal(jax.random.key_data(folded), split)
