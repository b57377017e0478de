"""Rules and remainders: what they do, and what is said where they cannot."""

import re

import brainstate
import pytest
from brainstate.util import filter as filters
from jax.sharding import PartitionSpec

from shardinit import (
    ArgumentError,
    ArgumentTypeError,
    LeafSpec,
    NonBatchState,
    PlanError,
    StateSpec,
    Topology,
    discover,
    plan,
)
from tests.planner.states import CPU, MIB, SPECS, Net, state


def placed(rules, specs=SPECS, topology=CPU, axis_size=12, **options):
    """PartitionSpec of the first leaf of every state, by path."""
    planned = plan(specs, topology, axis_size=axis_size, rules=rules, **options)
    return {"/".join(s.spec.path): s.leaves[0].partition_spec for s in planned.states}


def replicated(rules, specs=SPECS, **options):
    """Paths of the states that a rule replicates."""
    planned = plan(specs, CPU, axis_size=12, rules=rules, **options)
    return {"/".join(s.spec.path) for s in planned.states if s.reason.endswith("every device holds all of it")}


# Filters


@pytest.mark.parametrize(
    ("the_filter", "hit"),
    [
        ("layers/*/weight", {"layers/0/weight", "layers/1/weight"}),
        ("layers/0/*", {"layers/0/weight", "layers/0/bias"}),
        ("*/bias", {"layers/0/bias", "layers/1/bias"}),
        ("scale", {"scale"}),
        ("layers/[1-9]/w*", {"layers/1/weight"}),
        ("*", {"/".join(s.path) for s in SPECS}),
        ("frozen", {"layers/0/weight", "layers/1/bias"}),
        ("fast", {"layers/1/bias"}),
        (brainstate.HiddenState, {"layers/1/bias"}),
        (NonBatchState, {"scale"}),
        (["scale", brainstate.HiddenState], {"scale", "layers/1/bias"}),
        (("scale", ["*/bias"]), {"scale", "layers/0/bias", "layers/1/bias"}),
        (..., {"/".join(s.path) for s in SPECS}),
        (True, {"/".join(s.path) for s in SPECS}),
        (lambda path, spec: path[-1] == "bias" and spec.state_class == "HiddenState", {"layers/1/bias"}),
    ],
)
def test_a_filter_of_specs(the_filter, hit):
    assert replicated([(the_filter, "replicate")]) == hit


@pytest.mark.parametrize(
    ("the_filter", "hit"),
    [
        ("weight", {"weight"}),
        ("membrane", {"v"}),
        (brainstate.ParamState, {"weight"}),
        (brainstate.State, {"weight", "v", "count", "shared"}),
        ([brainstate.HiddenState, "count"], {"v", "count"}),
        (lambda path, found: isinstance(found, brainstate.ShortTermState) and path[0] == "count", {"count"}),
        (filters.OfType(brainstate.HiddenState), {"v"}),
        (filters.PathContains("weight"), {"weight"}),
        (filters.WithTag("membrane"), {"v"}),
        (filters.Not(brainstate.ParamState), {"v", "count", "shared"}),
        (filters.Any(brainstate.ParamState, "membrane"), {"weight", "v"}),
        (filters.All(brainstate.HiddenState, "membrane"), {"v"}),
        (filters.Everything(), {"weight", "v", "count", "shared"}),
    ],
)
def test_a_filter_of_a_program(the_filter, hit):
    program = discover(Net())
    planned = plan(program, CPU, axis_size=12, rules=[(the_filter, "replicate")])
    assert {s.spec.name for s in planned.states if s.reason.startswith("rule")} == hit


@pytest.mark.parametrize(
    "nothing", ["layers/2/*", "Weight", None, False, brainstate.LongTermState, [], lambda *_: False]
)
def test_a_rule_that_matches_nothing_is_refused(nothing):
    with pytest.raises(
        PlanError, match=r"matches none of 5 states. Paths look like 'layers/0/weight'.* change the filter"
    ):
        plan(SPECS, CPU, axis_size=12, rules=[("*", "vmap"), (nothing, "replicate")])


def test_a_filter_object_that_matches_nothing_is_refused():
    with pytest.raises(PlanError, match="matches none of 4 states"):
        plan(discover(Net()), CPU, axis_size=12, rules=[(filters.Nothing(), "replicate")])


def test_the_first_rule_that_matches_counts():
    rules = [("layers/0/*", "replicate"), ("*/weight", ("lanes", None, "model")), (..., "replicate")]
    assert placed(rules) == {
        "layers/0/weight": (None, None, None),
        "layers/0/bias": (None, None),
        "layers/1/weight": ("lanes", None, "model"),
        "layers/1/bias": (None, None),
        "scale": (None,),
    }


def test_rules_may_be_any_iterable_of_pairs():
    rules = [["scale", "replicate"], ("*/bias", ["lanes", None])]
    wanted = plan(SPECS, CPU, axis_size=12, rules=rules)
    for same in (tuple(rules), iter(rules), (r for r in rules)):
        assert plan(SPECS, CPU, axis_size=12, rules=same) == wanted


# Placements


@pytest.mark.parametrize(
    ("placement", "spec", "strategy"),
    [
        (("lanes", None, "model"), ("lanes", None, "model"), "gspmd"),
        (["lanes", "model", None], ("lanes", "model", None), "gspmd"),
        (PartitionSpec("lanes", None, "model"), ("lanes", None, "model"), "gspmd"),
        (PartitionSpec("lanes"), ("lanes", None, None), "shard_map"),
        (PartitionSpec(), ("lanes", None, None), "shard_map"),
        ((..., "model"), ("lanes", "model", None), "gspmd"),
        ((None, "lanes"), (None, "lanes", None), "gspmd"),
        ((None, None, None), (None, None, None), "vmap"),
        (("model",), ("model", None, None), "gspmd"),
        ("replicate", (None, None, None), "vmap"),
        ("vmap", (None, None, None), "vmap"),
        ("shard_map", ("lanes", None, None), "shard_map"),
        ("gspmd", ("lanes", None, None), "gspmd"),
        ("pmap", ("lanes", None, None), "pmap"),
    ],
)
def test_a_placement(placement, spec, strategy):
    planned = plan(SPECS, CPU, axis_size=12, rules=[("layers/0/weight", placement)])
    first = planned.states[0]
    assert (first.leaves[0].partition_spec, first.strategy) == (spec, strategy)
    assert "rule (layers/0/weight -> " in first.reason
    size = 12 * 16 * 24 * 4
    for name in spec:
        size //= dict(planned.mesh_axes).get(name, 1)
    assert first.leaves[0].bytes_per_device == size


def test_open_axes_are_left_to_the_planner():
    large = [state("w", 64, 4096 * 16)]
    assert placed([("w", (...,))], large) == placed([], large) == {"w": ("lanes", None, "model")}
    assert placed([("w", ("lanes", ..., None))], large) == {"w": ("lanes", "model", None)}
    assert placed([("w", (None, ..., ...))], large) == {"w": (None, None, "model")}
    assert placed([("w", (..., None, None))], large) == {"w": ("lanes", None, None)}
    assert placed([("w", (..., "lanes", ...))], large) == {"w": (None, "lanes", "model")}


def test_a_mesh_axis_may_be_called_open():
    topology = Topology("cpu", 8, (("lanes", 4), ("open", 2)))
    assert placed([("w", ("lanes", "open"))], [state("w", 8)], topology) == {"w": ("lanes", "open")}
    with pytest.raises(PlanError, match="names the mesh axis 'open'"):
        plan(SPECS, CPU, axis_size=12, rules=[("scale", "replicate"), ("*", ("lanes", "open"))])


def test_a_shared_state_can_be_split_by_what_is_not_the_lanes():
    assert placed([("scale", ("model",))])["scale"] == ("model",)
    assert placed([("scale", "gspmd")])["scale"] == (None,)


def test_reasons_of_ruled_states_say_what_splits_the_lanes():
    planned = plan(SPECS, CPU, axis_size=12, rules=[("layers/0/weight", ("model",))])
    assert "`model`=2 splits axis 0 of 12" in planned.states[0].reason
    assert "4 divide the lanes" not in planned.states[0].reason


@pytest.mark.parametrize(
    ("placement", "error", "parts"),
    [
        (("nope",), PlanError, ["'nope'", "'weight'", "float32[16,24]", "lanes=6", "Name one of these"]),
        (
            ("lanes", None, None, None),
            PlanError,
            ["'weight'", "names 4 array axes", "float32[12, 16, 24] has 3", "or fewer"],
        ),
        (
            ("lanes", "lanes"),
            ArgumentError,
            ["(layers/0/weight -> (lanes, lanes))", "a mesh axis twice", "One mesh axis"],
        ),
        (("lanes", ("model",)), ArgumentTypeError, ["('model',) is a tuple", "Name one mesh axis per array axis"]),
        (PartitionSpec(("lanes", "model")), ArgumentTypeError, ["is a tuple", "Name one mesh axis"]),
        (("lanes", 1), ArgumentTypeError, ["1 is an int"]),
        (3, ArgumentTypeError, ["placement is an int", "Use 'replicate'"]),
        (None, ArgumentTypeError, ["placement is a NoneType"]),
        ({}, ArgumentTypeError, ["placement is a dict"]),
        ("magic", ArgumentError, ["'magic' is not known", "'shard_map'"]),
        ("", ArgumentError, ["'' is not known"]),
        ("lanes", ArgumentError, ["'lanes' is not known", "mesh axes per array axis"]),
    ],
)
def test_a_placement_that_cannot_be_is_refused(placement, error, parts):
    with pytest.raises(error) as caught:
        plan(SPECS, CPU, axis_size=12, rules=[("layers/0/weight", placement)])
    assert type(caught.value) is error
    for part in ["layers/0/weight", *parts]:
        assert part in str(caught.value)


def test_a_placement_that_does_not_divide_is_refused_with_the_sizes():
    with pytest.raises(PlanError) as caught:
        plan([state("w", 7, 24)], CPU, axis_size=8, rules=[("w", (None, "lanes"))])
    for part in ("does not divide ('w',)", "axis 1 of float32[8, 7, 24]", "size=7", "'lanes'=8", "Split another axis"):
        assert part in str(caught.value)


def test_a_rule_that_fits_one_mesh_only_leads_to_that_mesh():
    planned = plan([state("w", 9)], Topology("cpu", 6), axis_size=1, rules=[("w", (None, "model"))])
    assert dict(planned.mesh_axes) == {"lanes": 1, "model": 3}
    assert "names the mesh axis 'model'" in planned.rejected[0].reason


@pytest.mark.parametrize("placement", [("lanes",), "shard_map", "pmap"])
def test_lanes_of_a_shared_state_cannot_be_split(placement):
    for specs in (SPECS, discover(Net())):
        with pytest.raises(PlanError) as caught:
            plan(specs, CPU, axis_size=12, rules=[(NonBatchState, placement)])
        for part in ("contradicts", "NonBatchState, float32[4]", "out axis None", "'replicate'"):
            assert part in str(caught.value)
    fixed = plan(SPECS, CPU, axis_size=12, rules=[("scale", "replicate"), (NonBatchState, placement)])
    assert fixed.states[-1].strategy == "vmap"


def test_a_value_on_the_host_cannot_be_split():
    spec = StateSpec(("n",), "NonBatchState", (LeafSpec((4,), "int64", 8, False, False, True),), None)
    with pytest.raises(PlanError, match=r"cannot split .*int64\[4\].*stays on the host. Make it by jax.numpy"):
        plan([spec], CPU, axis_size=12, rules=[("n", ("model",))])


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (3, "rules is an int"),
        (None, "rules is a NoneType"),
        ("replicate", "rules is a str"),
        ({"w": "replicate"}, "rules is a dict"),
        ([3], "rule 3 is not a pair"),
        (["ab"], "rule 'ab' is not a pair"),
        (("*", "replicate"), r"rule '\*' is not a pair"),
        ([("*",)], "is not a pair"),
        ([("*", "replicate", 1)], "is not a pair"),
        ([(3, "replicate")], "filter 3 is an int"),
        ([([3.5], "replicate")], "filter 3.5 is a float"),
        ([(b"*", "replicate")], "is a bytes"),
    ],
)
def test_rules_of_the_wrong_type_are_refused(rules, message):
    with pytest.raises(ArgumentTypeError, match=message):
        plan(SPECS, CPU, axis_size=12, rules=rules)


def test_of_the_meshes_the_one_with_the_fewest_bytes_is_taken_rules_included():
    specs = [state("w", 5 * MIB), state("v", 3 * MIB // 4)]
    topology = Topology("cpu", 15)
    planned = plan(specs, topology, axis_size=1, rules=[("w", "replicate")])
    best = plan(specs[1:], topology, axis_size=1).bytes_per_device + 5 * MIB * 4
    assert planned.bytes_per_device == best, [(o.mesh_axes, o.bytes_per_device) for o in planned.rejected]


def test_gspmd_as_asked_is_for_every_batched_state():
    for topology in (CPU, Topology("cpu", 8, (("lanes", 8),))):
        planned = plan(SPECS, topology, axis_size=16, strategy="gspmd")
        assert {s.strategy for s in planned.states if s.spec.out_axis is not None} == {"gspmd"}


# Remainders


@pytest.mark.parametrize("remainder", ["factor", "replicate", "pad", "error"])
def test_lanes_that_divide_have_no_remainder(remainder):
    planned = plan(SPECS, CPU, axis_size=16, remainder=remainder)
    assert (dict(planned.mesh_axes), planned.padded_axis_size, planned.remainder) == ({"lanes": 8}, 16, remainder)
    assert planned.states[0].leaves[0].partition_spec == ("lanes", None, None)


def test_remainder_factor_splits_by_as_many_devices_as_divide():
    planned = plan(SPECS, CPU, axis_size=12)
    assert (dict(planned.mesh_axes), planned.lanes_per_device) == ({"lanes": 6}, 2)


def test_remainder_replicate_holds_all_on_every_device():
    planned = plan(SPECS, CPU, axis_size=12, remainder="replicate")
    assert {s.strategy for s in planned.states} == {"vmap"}
    assert not any(any(leaf.partition_spec) for s in planned.states for leaf in s.leaves)
    assert planned.bytes_per_device == 12 * 4 * (16 * 24 + 24 + 24 * 8 + 8) + 16
    assert "8 does not divide 12 lanes" in planned.reason


def test_remainder_pad_computes_more_and_splits_another_axis():
    planned = plan(SPECS, CPU, axis_size=12, remainder="pad")
    assert (dict(planned.mesh_axes), planned.padded_axis_size) == ({"lanes": 8}, 16)
    assert planned.states[0].leaves[0].partition_spec == (None, None, "lanes")
    assert "16 lanes computed, 4 of them cut off" in planned.states[0].reason
    assert planned.states[-1].leaves[0].partition_spec == (None,)


def test_remainder_pad_holds_all_of_what_no_other_axis_divides_and_says_what_it_costs():
    planned = plan([*SPECS, state("odd", 3)], CPU, axis_size=12, remainder="pad")
    odd = planned.states[-1]
    assert (odd.strategy, odd.leaves[0].partition_spec, odd.bytes_per_device) == ("gspmd", (None, None), 144)
    assert "16 lanes computed, 4 of them cut off; no other axis divides by 8" in odd.reason
    assert "every device holds all of it, 144 B" in odd.reason
    assert "every device computes 2 lanes and holds" in planned.reason
    assert "even share" in planned.reason


@pytest.mark.parametrize("topology", [CPU, Topology("cpu", 8, (("lanes", 8),)), Topology("cpu", 16, None, 4)])
@pytest.mark.parametrize("axis_size", [1, 3, 12, 17])
def test_remainder_error_names_the_nearest_numbers_of_lanes(topology, axis_size):
    with pytest.raises(
        PlanError, match=f"axis_size={axis_size} is not a multiple of devices={topology.devices}"
    ) as caught:
        plan(SPECS, topology, axis_size=axis_size, remainder="error")
    sizes = [int(n) for n in re.findall(r"axis_size=(\d+)", str(caught.value).partition("Use ")[2])]
    assert sizes
    for size in sizes:
        assert plan(SPECS, topology, axis_size=size, remainder="error").lane_shards == topology.devices
    assert plan(SPECS, topology, axis_size=axis_size, remainder="factor")


@pytest.mark.parametrize("everything", [..., True], ids=["...", "True"])
def test_a_rule_for_everything_is_for_attributes_too(everything):
    class Keeps(brainstate.nn.Module):
        def init_state(self):
            self.v = brainstate.ShortTermState(brainstate.random.normal(size=(8,)))
            self.drawn = brainstate.random.normal(size=(8,))

    program = discover(Keeps())
    assert [spec.kind for spec in program.specs] == ["new", "attribute"]
    planned = plan(program, Topology("cpu", 8), axis_size=8, rules=[(everything, "replicate")])
    assert [state.strategy for state in planned.states] == ["vmap", "vmap"]
