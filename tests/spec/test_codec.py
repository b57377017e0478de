"""Every spec that is written can be read again, and nothing else can be read as it."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shardinit
from shardinit import ArgumentError, ArgumentTypeError
from shardinit.spec import certificate, plan, receipt, run, run_view
from shardinit.spec.codec import VERSION, from_json, json_schema, to_fields, to_json
from shardinit.spec.states import LeafSpec, StateSpec
from shardinit.spec.topology import Topology

KINDS = (
    *(LeafSpec, StateSpec, plan.Step, plan.LeafPlan, plan.Rejected),
    *(receipt.Receipt, certificate.PieceCertificate, certificate.Certificate),
    *(run.LaunchRecord, run.OwnerRecord, run.RankStatus, run.EndRecord, run.GangSpec, run_view.RunView),
)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
st.register_type_strategy(float, NUMBERS)
st.register_type_strategy(Topology, st.builds(Topology, st.sampled_from(["cpu", "gpu", "tpu"]), st.integers(1, 4096)))
PLANS = st.builds(
    plan.InitPlan,
    topology=st.from_type(Topology),
    states=st.lists(st.from_type(plan.StatePlan), max_size=2).map(tuple),
    steps=st.lists(st.from_type(plan.Step), max_size=2).map(tuple),
    program=st.none(),
)


@settings(max_examples=150, deadline=None)
@given(st.one_of(PLANS, *map(st.from_type, KINDS)))
def test_what_is_written_is_read_again(value):
    text = to_json(value)
    assert from_json(text, type(value)) == value
    assert to_json(from_json(text, type(value))) == text
    assert json.loads(text).keys() >= {"type", "version"}


@pytest.mark.parametrize("kind", [*KINDS, plan.InitPlan], ids=lambda k: k.__name__)
def test_the_schema_names_what_is_written(kind):
    schema = json_schema(kind)
    fields = {f.name for f in dataclasses.fields(kind)} - set(getattr(kind, "unwritten", ()))
    assert schema["properties"].keys() == {"type", "version", *fields, *getattr(kind, "derived", ())}
    assert schema["additionalProperties"] is False
    assert schema["properties"]["version"] == {"const": VERSION}


END = run.EndRecord(11, "a peer died", 3.5)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"version": 5}, rf"EndRecord has version=5, this shardinit reads version={VERSION}"),
        ({"version": None}, "version=None"),
        ({"type": "RankStatus"}, "type='RankStatus', not 'EndRecord'"),
        ({"codes": 1}, r"cannot be read: codes: Unexpected keyword argument \(1 such\)"),
        ({"code": "many"}, "cannot be read: code: "),
        ({"time": [1]}, "cannot be read: time: "),
    ],
)
def test_what_is_something_else_is_refused(changed, message):
    with pytest.raises(ArgumentError, match=message):
        from_json(json.dumps({**to_fields(END), **changed}), run.EndRecord)


@pytest.mark.parametrize("kind", [*KINDS, plan.InitPlan], ids=lambda k: k.__name__)
def test_a_field_that_is_not_known_is_refused_at_any_depth(kind):
    """Else a file of another release could be read as if it said less."""
    objects = list(find_objects(json_schema(kind)))
    assert objects
    assert all(o["additionalProperties"] is False for o in objects)


def find_objects(schema):
    """Schemas of all objects within a schema."""
    if isinstance(schema, dict):
        if "properties" in schema:
            yield schema
        schema = [*schema.values()]
    for inner in schema if isinstance(schema, list) else ():
        yield from find_objects(inner)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '"a"', "null", "[" * 100_000])
def test_what_is_no_object_is_refused(text):
    with pytest.raises(ArgumentError, match="EndRecord"):
        from_json(text, run.EndRecord)


def test_what_is_no_text_is_refused():
    with pytest.raises(ArgumentTypeError, match="this is an int, not the text of EndRecord"):
        from_json(3, run.EndRecord)


def test_a_certificate_and_a_receipt_are_read_again():
    import brainstate

    class Net(brainstate.nn.Module):
        def init_state(self):
            self.v = brainstate.ShortTermState(brainstate.random.normal(size=(8,)))

    result = shardinit.shard_new_states(Net(), axis_size=8)
    assert shardinit.Receipt.from_json(result.receipt.to_json()) == result.receipt
    certified = result.plan.certify(workers=1)
    assert shardinit.Certificate.from_json(certified.to_json()) == certified
    both = json.dumps({"plan": json.loads(result.plan.to_json()), "certificate": json.loads(certified.to_json())})
    assert shardinit.Certificate.from_json(both) == certified
    assert shardinit.InitPlan.from_json(both) == result.plan
