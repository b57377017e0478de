"""A primitive that no table knows: whole lanes at a time, shard-local, unsliced, counted as a sum, named."""

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brainstate import ParamState
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir
from jax.sharding import NamedSharding, PartitionSpec

import shardinit
from shardinit.lane.primitives import accumulates, unknown_primitives
from tests.conftest import mesh_of
from tests.executor.test_eager_steps import Table
from tests.reference import assert_like_brainstate

R = brainstate.random


def invented(name, function):
    """Make a primitive of the last axis, as a library of kernels would: with rules for lanes and for the compiler."""
    primitive = Primitive(name)
    primitive.def_impl(jax.jit(function))
    primitive.def_abstract_eval(lambda x: jax.core.ShapedArray(x.shape, x.dtype))
    mlir.register_lowering(primitive, mlir.lower_fun(function, multiple_results=False))

    def by_lane(arguments, axes):
        return primitive.bind(jnp.moveaxis(arguments[0], axes[0], 0)), 0

    batching.primitive_batchers[primitive] = by_lane
    return primitive


WAVE = invented("wave", lambda x: jnp.cumsum(jnp.sin(x) * 0.3, axis=-1) - x)
BITS = invented("flip_bits", lambda x: jnp.flip(x, axis=-1) ^ 5)
# Others may have JAX's names: they are no moves, no calls, no checks.
NAMESAKES = {name: invented(name, lambda x: jnp.cumsum(x * 0.3, axis=-1) + 65) for name in ("gather", "cond", "call")}


class Waves(brainstate.nn.Module):
    def __init__(self, size=(4, 8)):
        super().__init__()
        self.size = size

    def init_state(self):
        x = R.normal(size=self.size)
        self.wave = ParamState(WAVE.bind(x * 0.7) * 0.3 - 65)
        self.in_jit = ParamState(jax.jit(lambda v: WAVE.bind(v) * 0.3)(x))
        self.bits = ParamState(BITS.bind(R.randint(0, 100, size=(8,))))
        self.plain = ParamState(R.uniform(size=(8,)))


OPTIONS = {
    "one device": {"mesh": mesh_of(1)},
    "lanes": {},
    "lanes and model": {"mesh": mesh_of(4, 2), "rules": [("wave", ("lanes", None, "model"))]},
    "model alone": {"mesh": mesh_of(1, 8), "rules": [("wave", ("lanes", None, "model"))]},
    "the axis of the lanes for another": {"rules": [("wave", (None, None, "lanes"))]},
    "pad": {"axis_size": 6, "remainder": "pad"},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_values_are_those_of_eager_brainstate_and_the_receipt_names_it(options):
    options = {"axis_size": 8} | options
    _, result = assert_like_brainstate(
        Waves, lambda m: shardinit.shard_new_states(m, **options), axis_size=options["axis_size"]
    )
    (note,) = [n for n in result.receipt.notes if "does not know" in n]
    assert "(flip_bits, wave)" in note
    assert note.endswith(": wave, in_jit, bits")


LARGE = (8, 1024)  # too many elements to compute all lanes on every device


def has_unknown(structure):
    return any(map(unknown_primitives, structure.equations))


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((8,), ("lanes", None, None)),
        ((4, 2), ("lanes", None, "model")),
        ((1, 8), ("lanes", None, "model")),
        ((2, 4), (None, "model", "lanes")),
    ],
)
def test_whole_lanes_are_computed_without_communication(shape, spec):
    mesh = mesh_of(*shape)
    program = shardinit.discover(Waves(LARGE))
    plan = shardinit.plan(
        program, shardinit.Topology.from_mesh(mesh), axis_size=8, rules=[("wave", spec)], strategy="auto"
    )
    compiled = shardinit.compile(program, plan, mesh).wait()
    brainstate.random.seed(7)
    result = shardinit.execute(compiled)
    made = program.objects[0].value
    assert made.sharding.is_equivalent_to(NamedSharding(mesh, PartitionSpec(*spec)), made.ndim)
    for piece in (p for p in result.compiled.programs if has_unknown(p.program.structure)):
        text = piece.executable.result().as_text()
        moved = spec[2] == "lanes" and "all-to-all" in text  # only once it is made
        assert not any(word in text for word in ("all-gather", "all-reduce", "collective-permute")) or moved
        assert piece.program.way.strategy in ("shard_map", "vmap", "padded")
    theirs = Waves(LARGE)
    brainstate.random.seed(7)
    brainstate.transform.vmap2_new_states(theirs, {}, axis_size=8)
    np.testing.assert_allclose(made, theirs.wave.value, rtol=1e-6)  # as the note says
    np.testing.assert_array_equal(program.objects[2].value, theirs.bits.value)


def test_it_is_counted_as_a_sum_and_never_sliced_or_split():
    program = shardinit.discover(Waves(LARGE))
    work = program.program.work(on_mesh=True, whole_lanes=True)
    unknown = [e for e in work.equations if unknown_primitives(e)]
    assert len(unknown) == 3
    assert all(map(accumulates, unknown))
    specs = [spec for spec, (structure, _) in zip(work.specs, work.pieces, strict=True) if has_unknown(structure)]
    assert len(specs) == 3  # each in a piece of its own
    assert not any(spec.splittable or spec.sliceable for spec in specs)
    generous = shardinit.plan(program, "cpu:2", axis_size=32, memory_budget="unlimited")
    tight = shardinit.plan(program, "cpu:2", axis_size=32, memory_budget=generous.peak_bytes - 1)
    of_unknown = {at for at, (structure, _) in enumerate(work.pieces) if has_unknown(structure)}
    assert all(step.slices == 1 for step in tight.steps if of_unknown.intersection(step.pieces))


def test_a_namesake_of_a_primitive_of_jax_is_not_known():
    functions = {name: primitive.bind for name, primitive in NAMESAKES.items()}
    _, result = assert_like_brainstate(
        lambda: Table(functions), lambda m: shardinit.shard_new_states(m, axis_size=8), axis_size=8
    )
    assert any("(call, cond, gather)" in n for n in result.receipt.notes)
