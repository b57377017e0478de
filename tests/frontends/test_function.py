"""The seam between front ends and the rest: a function of a key is planned, compiled, run and certified like a module.

All of it in a process in which brainstate cannot be imported.
"""

import subprocess
import sys

CODE = """
import sys

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("brainstate", "brainunit", "saiunit"):
            raise ImportError(f"{name} is not installed")

sys.meta_path.insert(0, Refused())
from shardinit.backend.emulate import emulate_cpu
emulate_cpu(8)
import jax
import jax.numpy as jnp
import numpy as np
from shardinit.backend.topologies import local_topology
from shardinit.certifier.certify import certify
from shardinit.compiler.compile import compile
from shardinit.executor.produce import produce
from shardinit.executor.receipt import receipt_of
from shardinit.lane.key_rule import Split
from shardinit.planner.search import plan
from shardinit.spec.options import PlanOptions, Rule
from shardinit.spec.receipt import StageSeconds
from tests.frontends.function import trace

def init(key):
    layers = []
    for _ in range(3):
        key, own = jax.random.split(key)
        layers.append({"w": jax.random.normal(own, (64, 32)) * 0.1 - 0.5, "b": jnp.zeros(32)})
    return {"layers": layers, "size": jnp.arange(4)}

traced = trace(init, jax.random.key(3))
spec = traced.program.spec(on_mesh=True)
by_rule = PlanOptions(16, rules=(Rule("layers/*/w", "", axes=(None, "lanes")),))
for options in (PlanOptions(16), PlanOptions(12), by_rule):
    planned = plan(spec, local_topology(), options)
    compiled = compile(traced.program, planned)
    sink = traced.sink
    key = sink.key
    made = produce(compiled, sink.keys())
    rule = Split(options.axis_size)
    sink.commit(made.values, [rule.key_after(k) for k in sink.keys()])
    lanes = jax.random.split(key, options.axis_size + 1)[1:]
    expected = jax.vmap(init, axis_size=options.axis_size)(lanes)
    for found, value in zip(jax.tree.leaves(sink.made), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(found, value)
    receipt = receipt_of(compiled, made, StageSeconds(0, 0, 0, 0), traced.notes, again=False)
    assert set(receipt.measured_bytes.values()) == {planned.bytes_per_device}, receipt
    assert receipt.programs <= 5, receipt.programs  # however many layers there are
import dataclasses
certified = certify(dataclasses.replace(planned, program=traced.program), workers=2)
assert certified.passed, certified
assert not {"brainstate", "brainunit"} & sys.modules.keys()
print("done")
"""


def test_a_function_is_planned_compiled_run_and_certified_without_brainstate():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=300)
    assert done.stdout.endswith("done\n"), done.stderr[-3000:]
