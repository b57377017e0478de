"""The lane program: how it is cut, what a traced callable returns."""

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import shardinit
from shardinit.api.execute import run
from shardinit.compiler.compile import compile
from shardinit.frontends.brainstate.axes import axis_filters
from shardinit.frontends.brainstate.trace_init import trace_init
from tests.conftest import mesh_of


def test_a_sum_that_a_print_alone_reads_is_cut_for_split_lanes():
    class Prints(brainstate.nn.Module):
        def init_state(self):
            w = brainstate.random.normal(size=(256, 256))
            jax.debug.print("{}", w.sum())
            self.w = brainstate.ParamState(w)

    program = shardinit.discover(Prints()).program
    whole, split = (program.spec(on_mesh=True).whole, program.spec(on_mesh=True).split)
    assert len(whole.pieces) > len(split.pieces)  # sums are pieces of their own only where lanes stay whole


def test_without_sums_both_cuts_are_one():
    class Draws(brainstate.nn.Module):
        def init_state(self):
            self.w = brainstate.ParamState(brainstate.random.normal(size=(256, 256)))

    spec = shardinit.discover(Draws()).program.spec(on_mesh=True)
    assert spec.whole == spec.split


def test_what_a_traced_callable_returns_is_kept():
    """As constructors will need it: a module that it makes, with arrays outside of states, and bare arrays."""

    class Made(brainstate.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = brainstate.ParamState(brainstate.random.normal(size=(8, 4)))
            self.mask = brainstate.random.uniform(size=(4,)) < 0.5

    def make():
        made = Made()
        return made, made.w.value[0] * 2.0

    brainstate.random.seed(3)
    traced = trace_init(make, {}, axis_filters(None), keeps_returned=True)
    names = {spec.name for spec in traced.specs}
    assert names == {"returned/0/w", "returned/0/mask", "returned"}
    planned = shardinit.plan(traced, shardinit.Topology.from_mesh(mesh_of(4)), axis_size=8)
    compiled = shardinit.compile(traced, planned)
    seen = []
    for seed in (3, 4):
        brainstate.random.seed(seed)
        run(compiled, again=bool(seen))
        module, row = traced.sink.made
        np.testing.assert_array_equal(row, module.w.value[:, 0] * 2.0)
        assert (module.w.value.shape, module.mask.shape, module.mask.dtype) == ((8, 8, 4), (8, 4), jnp.bool_)
        seen.append(np.asarray(row))
    assert (seen[0] != seen[1]).any()


def test_a_program_that_is_compiled_for_nobody_is_not_executed():
    class Draws(brainstate.nn.Module):
        def init_state(self):
            self.w = brainstate.ParamState(brainstate.random.normal(size=(4,)))

    traced = shardinit.discover(Draws())
    compiled = compile(traced.program, shardinit.plan(traced, "cpu:8", axis_size=8))
    with pytest.raises(shardinit.ArgumentTypeError, match=r"what shardinit\.compile returns"):
        shardinit.execute(compiled)
