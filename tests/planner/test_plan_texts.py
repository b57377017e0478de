"""Plans as text and back, their fingerprints, and plans of many states."""

import json
import subprocess
import sys

import brainstate
import pytest
from brainstate.util import filter as filters

from shardinit import (
    ArgumentError,
    ArgumentTypeError,
    InitPlan,
    Topology,
    discover,
    plan,
)
from tests.planner.states import CPU, SPECS, Net

# Plans as text

PLANS = [
    lambda: plan(SPECS, CPU, axis_size=12),
    lambda: plan(SPECS, "h100:2x4", axis_size=6, rules=[("*/weight", (..., None))]),
    lambda: plan(SPECS, "2xv5e:2x4", axis_size=3, memory_budget="1GiB", numerics="fused"),
    lambda: plan(SPECS, CPU, axis_size=12, remainder="pad"),
    lambda: plan(SPECS, Topology("cpu", 1, ()), axis_size=5),
    lambda: plan([], CPU, axis_size=5),
    lambda: plan(discover(Net()), CPU, axis_size=12, rules=[(filters.OfType(brainstate.HiddenState), "replicate")]),
]


@pytest.mark.parametrize("make", PLANS)
def test_a_plan_survives_its_text(make):
    planned = make()
    again = InitPlan.from_json(planned.to_json())
    assert again == planned
    assert again.program is None
    assert again.to_json() == planned.to_json()
    assert again.fingerprint == planned.fingerprint
    assert str(again) == str(planned)


def test_different_plans_have_different_fingerprints():
    assert len({make().fingerprint for make in PLANS}) == len(PLANS)


def changed(**changes):
    data = {**json.loads(plan(SPECS, CPU, axis_size=12).to_json()), **changes}
    return json.dumps({k: v for k, v in data.items() if v is not ...})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "this is not a valid InitPlan"),
        ("plan", "this is not a valid InitPlan"),
        ("{", "this is not a valid InitPlan"),
        ("[]", "this is a list, not the object"),
        ("3", "this is an int, not the object"),
        ("null", "this is a NoneType, not the object"),
        ("{}", "version=None"),
        (changed(version=1), r"version=1, this shardinit reads version=\d+. Make it again"),
        (changed(version="2"), "version=2"),
        (changed(states=...), "cannot be read: states: Field required"),
        (changed(axis_size="many"), "axis_size"),
        (changed(states=3), "states"),
        (changed(topology={"platform": "cpu"}), r"topology\.devices: Field required"),
        (changed(topology={"platform": "cpu", "devices": 0}), "devices=0"),
        (changed(numerics="fast"), "numerics"),
    ],
)
def test_a_text_that_is_no_plan_is_refused(text, message):
    with pytest.raises(ArgumentError, match=message):
        InitPlan.from_json(text)


@pytest.mark.parametrize("text", [None, 3, {}])
def test_what_is_no_text_is_refused_by_its_type(text):
    with pytest.raises(ArgumentTypeError):
        InitPlan.from_json(text)


FINGERPRINT = """
from shardinit import LeafSpec, StateSpec, Topology, plan
leaf = lambda i: LeafSpec((i, 4096), "float32", 4)
specs = [StateSpec(("a", str(i)), "ParamState", (leaf(i),), 0, ("t", "u")) for i in range(50)]
rules = [("a/1*", ("lanes", None)), (["a/3", "a/4"], "replicate"), ("u", "gspmd")]
for topology, options in (
    (Topology("cpu", 8), {"axis_size": 12}),
    ("h100:4x8", {"axis_size": 12, "memory_budget": "1GiB"}),
    ("2xv5e:4x4", {"axis_size": 60, "remainder": "pad"}),
    (Topology("cpu", 8), {"axis_size": 12, "rules": rules}),
):
    print(plan(specs, topology, **options).fingerprint)
"""


def test_fingerprints_are_the_same_in_every_process():
    found = set()
    for seed in ("0", "1", "4242"):
        env = {"JAX_PLATFORMS": "none_such", "PYTHONHASHSEED": seed, "PATH": "", "HOME": "/tmp"}
        done = subprocess.run([sys.executable, "-c", FINGERPRINT], env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        found.add(done.stdout)
    assert len(found) == 1
    assert len(set(found.pop().split())) == 4


# Scale

MANY, DEVICES = 100_000, 8192

SCALE = """
import resource, sys, time
from shardinit import LeafSpec, StateSpec, Topology, plan
kind, axis_size = sys.argv[1], int(sys.argv[2])
shape = (lambda i: (i + 1, 8)) if kind == "distinct" else (lambda i: (512, 8))
specs = [StateSpec(("layers", str(i)), "ParamState", (LeafSpec(shape(i), "float32", 4),)) for i in range(100_000)]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began = time.perf_counter()
planned = plan(specs, Topology("cpu", 8192), axis_size=axis_size)
seconds = time.perf_counter() - began
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(before, after, seconds, len(planned.states), planned.bytes_per_device, dict(planned.mesh_axes))
"""


@pytest.mark.parametrize("kind", ["distinct", "equal"])
@pytest.mark.parametrize("axis_size", [DEVICES * 4, 12])
def test_a_hundred_thousand_states_on_thousands_of_devices_take_little_memory(kind, axis_size):
    command = [sys.executable, "-c", SCALE, kind, str(axis_size)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    before, after, _, states, held = done.stdout.split(maxsplit=5)[:5]
    assert int(states) == MANY
    assert int(after) - int(before) < 600 * 1024, f"planning took {(int(after) - int(before)) >> 10} MiB"
    sizes = sum((i + 1 if kind == "distinct" else 512) * 8 * 4 for i in range(MANY))
    if axis_size == DEVICES * 4:
        assert int(held) == 4 * sizes
    else:
        assert 12 * sizes // DEVICES <= int(held) <= 12 * sizes
