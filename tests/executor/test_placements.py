"""Placements that init asks for change no value; the plan says where states go, and the receipt names them."""

import sys

import brainstate
import jax
import pytest
from brainstate import HiddenState
from jax.sharding import NamedSharding, PartitionSpec

import shardinit
from tests.conftest import mesh_of
from tests.reference import assert_like_brainstate


def asked():
    return NamedSharding(mesh_of(8, names=("x",)), PartitionSpec("x"))


def constrained(v):
    return jax.lax.with_sharding_constraint(v * 0.3, asked())


class Placed(brainstate.nn.Module):
    def init_state(self):
        v = brainstate.random.normal(size=(16,))
        self.constraint = HiddenState(constrained(v) + v * v)
        self.inside = HiddenState(jax.jit(lambda v: jax.jit(constrained)(v) + v)(v))
        self.returned = HiddenState(jax.jit(constrained)(v))
        self.put = HiddenState(jax.device_put(v, asked()) * 0.3)
        self.out = HiddenState(jax.jit(lambda v: v + 1.0, out_shardings=asked())(v))
        self.put_inside = HiddenState(jax.jit(lambda v: jax.device_put(v, asked()) * 0.3)(v))
        self.taken = HiddenState(jax.jit(lambda v: v + 1.0, in_shardings=asked())(v))


def named_by(result):
    return [n for n in result.receipt.notes if n.startswith("a placement asked for inside init was not followed")]


@pytest.mark.parametrize("devices", [1, 8])
def test_placements_inside_init(devices):
    _, result = assert_like_brainstate(
        Placed, lambda m: shardinit.shard_new_states(m, axis_size=8, mesh=mesh_of(devices)), axis_size=8
    )
    named = named_by(result)
    assert len(named) == 6
    assert named[5].endswith(": returned, out")


def wants(spec, shape=(4, 2)):
    """A sharding on a mesh of init's own, whose axes have the names of the ensemble's mesh."""
    return NamedSharding(mesh_of(*shape, names=("lanes", "x")), PartitionSpec(*spec))


class Wishing(brainstate.nn.Module):
    def init_state(self):
        v = brainstate.random.normal(size=(6, 5))
        self.constraint = HiddenState(jax.lax.with_sharding_constraint(v * 0.3, wants([("x",), None])))
        self.put = brainstate.ShortTermState({"a": jax.device_put(v + 1.0, wants(["x"])), "b": v * 2.0})
        self.jit = HiddenState(jax.jit(lambda v: (v.T, v), out_shardings=(wants([None, "x"]), None))(v)[0])
        self.inside = HiddenState(jax.jit(lambda v: jax.jit(lambda v: jax.device_put(v, wants(["x"])))(v))(v))
        self.odd = HiddenState(jax.device_put(v - 1.0, wants([None, "x"], (8, 1))))
        self.lanes = HiddenState(jax.device_put(v - 2.0, wants(["lanes"], (2, 4))))
        self.both = HiddenState(jax.lax.with_sharding_constraint(v - 3.0, wants([("lanes", "x")], (3, 2))))
        self.shared = brainstate.ParamState(jax.device_put(jax.numpy.arange(8.0) * 0.3, wants(["x"])))


def initialize_wishing(**kwargs):
    axes = {0: brainstate.util.filter.Not(brainstate.ParamState), None: brainstate.ParamState}
    return assert_like_brainstate(
        Wishing,
        lambda m: shardinit.shard_new_states(
            m, axis_size=4, mesh=mesh_of(4, 2, names=("lanes", "x")), state_out_axes=axes, **kwargs
        ),
        axis_size=4,
        state_out_axes=axes,
    )


def test_wishes_that_fit_are_followed():
    module, result = initialize_wishing()
    axes = {name: getattr(module, name).value for name in ("constraint", "put", "jit", "inside", "shared")}
    specs = {name: tuple(jax.tree.leaves(value)[0].sharding.spec) for name, value in axes.items()}
    assert specs == {
        "constraint": ("lanes", "x", None),
        "put": ("lanes", "x", None),
        "jit": ("lanes", None, "x"),
        "inside": ("lanes", "x", None),
        "shared": ("x",),
    }
    assert "as init asks" in next(s.reason for s in result.plan.states if s.spec.name == "put")
    assert len(named_by(result)) == 2
    assert named_by(result)[1].endswith(": odd, lanes")
    assert "test_placements.py" in named_by(result)[0]


def test_arguments_come_before_wishes():
    _, result = initialize_wishing(strategy="shard_map")
    assert named_by(result)[1].endswith(": constraint, put, jit, inside, odd, lanes, shared")
    module, result = initialize_wishing(rules=[("put", ("lanes", None, None)), ("shared", "replicate")])
    assert tuple(module.put.value["a"].sharding.spec) == ("lanes", None, None)
    assert named_by(result)[1].endswith(": put, odd, lanes, shared")


def test_a_wish_under_a_mesh_with_explicit_axes():
    class Drawn(brainstate.nn.Module):
        def init_state(self):
            key = brainstate.random.split_key()
            self.v = HiddenState(jax.random.normal(key, (6,), out_sharding=PartitionSpec("x")))

    mesh = jax.make_mesh((4, 2), ("lanes", "x"), axis_types=(jax.sharding.AxisType.Explicit,) * 2)
    with jax.set_mesh(mesh):
        module = Drawn()
        result = shardinit.shard_new_states(module, axis_size=4, mesh=mesh)
        assert tuple(module.v.value.sharding.spec) == ("lanes", "x")
    assert not named_by(result)


@pytest.mark.parametrize("axis", [None, 0])
@pytest.mark.parametrize("rules", [(), [("a", ("x", None)), ("b", (None, "x"))]], ids=["wish", "rule"])
def test_what_all_lanes_share_keeps_its_bits_in_parts(axis, rules, monkeypatch):
    class Shared(brainstate.nn.Module):
        def init_state(self):
            drawn = jax.random.normal(jax.random.key(3), (24, 3))
            self.a = HiddenState(jax.device_put(drawn, wants(["x"])))
            self.b = HiddenState(jax.device_put(jax.numpy.tanh(drawn * 0.3).T, wants([None, "x"])))

    if rules and axis is not None:
        rules = [(name, ("lanes", *axes)) for name, axes in rules]
    on_mesh = {"axis_size": 4, "mesh": mesh_of(4, 2, names=("lanes", "x")), "state_out_axes": {axis: ...}}

    def initialize(module):
        return shardinit.shard_new_states(module, rules=rules, **on_mesh)

    module, result = assert_like_brainstate(Shared, initialize, axis_size=4, state_out_axes={axis: ...})
    assert all("x" in state.value.sharding.spec for state in (module.a, module.b))
    assert not any("vectors" in note for note in result.receipt.notes)
    monkeypatch.setattr(sys.modules["shardinit.planner.search"], "MOST_WHOLE", 8)
    assert any("vectors" in note for note in initialize(Shared()).receipt.notes)


@pytest.mark.parametrize("rules", [(), [("a", ("x", None))]])
def test_a_plan_of_specs_alone_keeps_what_all_lanes_share_in_parts(rules):
    class Shared(brainstate.nn.Module):
        def init_state(self):
            self.a = HiddenState(jax.random.normal(jax.random.key(3), (24, 3)))

    mesh = mesh_of(4, 2, names=("lanes", "x"))
    topology = shardinit.Topology.from_mesh(mesh)

    def initialize(module):
        program = shardinit.discover(module, state_out_axes={None: ...})
        planned = shardinit.plan(program.specs, topology, axis_size=4, rules=rules, memory_budget="unlimited")
        return shardinit.execute(shardinit.compile(program, planned, mesh=mesh))

    _, result = assert_like_brainstate(Shared, initialize, axis_size=4, state_out_axes={None: ...})
    assert not any("vectors" in note for note in result.receipt.notes)


def test_a_wish_is_of_the_result_alone():
    class Several(brainstate.nn.Module):
        def init_state(self):
            v = brainstate.random.normal(size=(6, 6))
            self.a = HiddenState(jax.lax.with_sharding_constraint(v, wants(["x"])))
            self.b = HiddenState(jax.lax.with_sharding_constraint(v, wants([None, "x"])))
            self.plain = HiddenState(v)
            self.largest = HiddenState(jax.lax.with_sharding_constraint(v, wants(["x"])).max(0))
            twice = jax.lax.with_sharding_constraint(v * 2.0, wants(["x"]))
            self.withdrawn = HiddenState(jax.lax.with_sharding_constraint(twice, wants([None, None])))
            self.keys = HiddenState(
                jax.random.key_data(jax.device_put(jax.random.split(jax.random.key(1), 4), wants([])))
            )

    mesh = mesh_of(4, 2, names=("lanes", "x"))
    module, result = assert_like_brainstate(
        Several, lambda m: shardinit.shard_new_states(m, axis_size=4, mesh=mesh), axis_size=4
    )
    specs = {n: tuple(getattr(module, n).value.sharding.spec)[1:] for n in ("a", "b", "plain", "withdrawn")}
    assert specs == {"a": ("x", None), "b": (None, "x"), "plain": (None, None), "withdrawn": (None, None)}
    assert len(named_by(result)) == 4  # the largest's, both withdrawn ones, the keys'
