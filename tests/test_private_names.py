"""The private names that we depend on are there and behave as we need; this fails when they move."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend.core import Primitive

import shardinit
from shardinit.backend import private_jax
from shardinit.compiler.eager_steps import EagerSteps
from shardinit.frontends.brainstate import private_brainstate
from shardinit.lane import closed_over, digest, key_rows, placements, primitives, rounding, temporaries
from shardinit.lane.equations import UNKNOWN
from shardinit.lane.trace import RANDOM, LaneTrace, LaneTracer
from shardinit.planner import memory_figures

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


def test_every_private_name_has_a_line():
    """What it is for, and what would replace it."""
    for module in (private_jax, private_brainstate):
        listed = "".join(line for line in module.__doc__.splitlines() if line.startswith("- "))
        assert [name for name in module.__all__ if f"``{name}``" not in listed] == []


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
    """What ``exchange`` needs of the client, tried with a job of one process, in a process of its own."""
    code = """
import socket
import jax
from shardinit.backend.private_jax import distributed_state
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
client.key_value_set("a", "3", allow_overwrite=True)
client.key_value_set("c/d/e", "4")
client.key_value_set("c/dd", "5")
assert client.key_value_dir_get("c/d") == [("c/d/e", "4")] and client.key_value_try_get("a") == "3"
client.key_value_delete("c/d")  # with all below it, nothing beside it
client.key_value_delete("never there")
assert client.key_value_dir_get("c") == [("c/dd", "5")]
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
    assert private_brainstate.STATE_INTERNALS | {"_been_writen", "_level"} <= set(vars(state))


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


def test_methods_that_are_overridden():
    """JAX calls these by name: one that it renames would never be called."""
    for base, own in ((private_jax.Trace, (LaneTrace, EagerSteps)), (private_jax.Tracer, (LaneTracer,))):
        declared = private_jax.OVERRIDDEN[base.__name__]
        of_python = {"__slots__", "__parameters__", *dir(type), *dir(object), *dir(jnp.zeros(()))}
        overridden = {n for cls in own for n in vars(cls) if n in dir(base) and n not in of_python}
        assert overridden <= declared
        called_by_name = {"process_call", "process_shard_map"}  # those that not every trace has
        if jax.__version__ == "0.10.0":
            called_by_name.add("stage_value")
        assert declared - called_by_name <= set(dir(base))


def test_members_of_arrays_that_tracers_refuse():
    assert set(private_jax.REFUSED) <= set(dir(private_jax.Tracer)) & private_jax.ARRAY_MEMBERS


def test_methods_that_some_traces_have():
    """Those of calls are gone where JAX has no such primitives (0.11)."""
    assert private_jax.is_known(lax.add_p)  # it reads JAX's modules
    calls = any(primitive.name == "call" for primitive in private_jax._of_jax)
    source = "".join(p.read_text() for p in Path(jax.__file__).parent.glob("_src/*.py"))
    assert (".process_call(" in source) == calls
    assert ".process_shard_map" in source


def test_calls_that_a_trace_is_asked_for():
    """Functions come as JAX's own wrappers, which ``call_wrapped`` calls."""
    seen = []

    class Watching(EagerSteps):
        def process_custom_jvp_call(self, *args, **kwargs):
            seen.append("jvp")
            return super().process_custom_jvp_call(*args, **kwargs)

        def process_custom_vjp_call(self, *args, **kwargs):
            seen.append("vjp")
            return super().process_custom_vjp_call(*args, **kwargs)

    @jax.custom_vjp
    def vjp(v):
        return v + 1

    vjp.defvjp(lambda v: (v + 1, None), lambda _, t: (t,))

    def run(counter, v):
        with private_jax.set_current_trace(Watching(private_jax.trace_ctx.trace, counter)):
            return vjp(jax.nn.relu(v))

    assert jax.jit(run)(0, 2.0) == 3.0
    assert sorted(set(seen)) == ["jvp", "vjp"]


class Asked(LaneTracer):
    """Notes the names of the three frames above whenever JAX asks for a concrete value."""

    __slots__ = ()
    callers: ClassVar[list] = []

    def to_concrete_value(self):
        frame = sys._getframe(1)
        frame = frame if frame.f_code.co_name != "to_concrete_value" else frame.f_back
        self.callers.append([frame.f_code.co_name, frame.f_back.f_code.co_name, frame.f_back.f_back.f_code.co_name])
        return super().to_concrete_value()


@pytest.mark.parametrize(
    ("function", "name"),
    [(lambda n: jnp.linspace(0, 1, num=n), private_jax.CONCRETE), (lambda n: jnp.array(n), private_jax.ARRAY)],
    ids=["cannot go on", "would copy"],
)
def test_frames_that_ask_for_a_value(function, name, monkeypatch):
    monkeypatch.setattr(Asked, "callers", [])
    trace = LaneTrace(private_jax.trace_ctx.trace)
    with private_jax.set_current_trace(trace):
        function(Asked(trace, trace.atom(jnp.asarray(3))))
    if jax.__version__ == "0.10.0" and name == private_jax.ARRAY:
        assert Asked.callers == []  # there, jnp.array asks for no value
    else:
        assert any(name in names for names in Asked.callers)


def test_the_effect_of_a_named_axis():
    with private_jax.extend_axis_env_nd([("i", 3)]):
        effects = jax.make_jaxpr(lambda: lax.axis_index("i"))().effects
    assert [isinstance(e, private_jax.NamedAxisEffect) for e in effects] == [True]


def test_bind_gives_parameters_back_as_functions():
    """``get_bind_params``: a ``custom_jvp_call`` is bound with functions, its equation has jaxprs."""
    jaxpr = jax.make_jaxpr(jax.nn.relu)(1.0).jaxpr
    equation = next(e for e in _all_equations(jaxpr) if e.primitive.name == "custom_jvp_call")
    (found,) = private_jax.bind(equation.primitive, equation.params, [jnp.float32(-2.0)])
    assert found == 0.0
    assert private_jax.bind(lax.add_p, {}, [1, 2]) == [3]


TABLES = {
    **{n: getattr(primitives, n) for n in ("CALLS", "COLLECTIVES", "MOVES", "OPENED", "UNSPLITTABLE", "ACCUMULATING")},
    **{n: getattr(temporaries, n) for n in ("LOOPS", "BITS", "WRITTEN")},
    "ROUND_ALIKE": rounding.ROUND_ALIKE,
    "INDIFFERENT": closed_over.INDIFFERENT,
    "CONTRACTED": frozenset().union(*rounding.CONTRACTED),
    **{n: getattr(memory_figures, n) for n in ("FACTORIZATIONS", "SORTS")},
    "SCRATCH_WORDS": set(memory_figures.SCRATCH_WORDS),
    "COPIES": frozenset().union(*memory_figures.COPIES.values()),
    "CONSTRAINTS": placements.CONSTRAINTS,
    "IGNORED": set(digest.IGNORED),
    "RANDOM": RANDOM,
    "KEY_MOVES": key_rows.KEY_MOVES,
    "PARAMETERS": set(private_jax.PARAMETERS),
}
OF_SOME_VERSIONS = {
    *("call", "closed_call", "log2", "one_minus_square", "polynomial", "program_order"),
    *("mulhi", "philox2x32", "philox4x32", "stack", "stage", "threefry4x32", "unstack"),  # since jax 0.10.2
}


@pytest.mark.parametrize("table", TABLES)
def test_tables_have_declared_names_only(table):
    assert set(TABLES[table]) - private_jax.PRIMITIVES - {UNKNOWN} == set()


def test_primitives_are_there_by_name():
    assert private_jax.is_known(lax.add_p)  # it reads JAX's modules
    there = {primitive.name for primitive in private_jax._of_jax}
    assert private_jax.PRIMITIVES - there - OF_SOME_VERSIONS == set()


def test_a_primitive_of_anybody_else_is_not_known():
    assert not private_jax.is_known(Primitive("exp"))
    assert not private_jax.is_known(Primitive("invented"))
    unvmap = jax.make_jaxpr(lambda x: brainstate.transform.unvmap(x, op="any"))(True).eqns[0].primitive
    assert unvmap in private_brainstate.LANES_TOGETHER
    assert private_jax.is_known(unvmap)
    assert private_jax.is_known(lax.exp_p)


def _all_equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _all_equations(inner)


def test_parameters_that_are_read():
    @jax.custom_vjp
    def vjp(v):
        return v + 1

    vjp.defvjp(lambda v: (v + 1, None), lambda _, t: (t,))

    def function(v):
        v = lax.cond(v > 0, jnp.sin, jnp.cos, jax.device_put(vjp(jax.nn.relu(v))))
        v = lax.map(lambda row: lax.while_loop(lambda c: c < row, lambda c: c + row, row), v[None])[0]
        v = lax.platform_dependent(v, cpu=jnp.sin, default=jnp.cos)
        return lax.psum(v, "i") + jax.random.normal(jax.random.split(jax.random.key(0), 4)[1])

    with private_jax.extend_axis_env_nd([("i", 3)]):
        equations = [*_all_equations(jax.make_jaxpr(function)(1.0).jaxpr)]
    found = {}
    for equation in equations:
        found.setdefault(equation.primitive.name, set()).update(equation.params)
        assert hasattr(equation, "ctx")
    for name, parameters in private_jax.PARAMETERS.items():
        assert set(parameters) <= found[name], name
    assert "branches_platforms" in found["cond"]


def test_a_jit_that_asks_for_no_placement():
    (equation,) = jax.make_jaxpr(jax.jit(lambda x: x + 1))(1.0).eqns
    assert equation.params["in_shardings"] == equation.params["out_shardings"] == (private_jax.UNSPECIFIED,)


SETTINGS = {
    "jax_enable_x64": lambda: jax.enable_x64(True),
    "jax_threefry_partitionable": lambda: jax.threefry_partitionable(False),
    "jax_default_matmul_precision": lambda: jax.default_matmul_precision("highest"),
    "jax_numpy_dtype_promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "xla_metadata": lambda: set_xla_metadata(a="1"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_are_read_and_entered_again(name):
    outside = private_jax.settings()
    with SETTINGS[name]():
        inside = private_jax.settings()
    named = private_jax.settings_by_name(inside)
    assert {"compute_on", *SETTINGS} <= set(named)
    assert named[name] != private_jax.settings_by_name(outside)[name]
    assert {n for n, v in named.items() if v != private_jax.settings_by_name(outside)[n]} == {name}
    with private_jax.entered(inside):
        assert private_jax.settings() == inside
        with private_jax.entered(outside):
            assert private_jax.settings() == outside
    assert private_jax.settings() == outside


def test_the_configuration_is_a_key():
    key = private_jax.configuration()
    assert {key: 1}[private_jax.configuration()] == 1
    for change in (jax.debug_nans(True), jax.default_matmul_precision("highest"), jax.disable_jit()):
        with change:
            assert private_jax.configuration() != key
