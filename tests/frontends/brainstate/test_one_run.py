"""What the user is told of init code that depends on how often it runs, or that is wrong."""

import brainstate
import jax.numpy as jnp
import numpy as np
import pytest
from brainstate import ShortTermState

import shardinit
from shardinit.wording import folded


class Cell(brainstate.nn.Module):
    def init_state(self):
        self.w = ShortTermState(brainstate.random.normal(size=(3,)))


def module_of(init):
    class Outer(brainstate.nn.Module):
        init_state = init

    return Outer()


def makes_one(self):
    self.cell = Cell()
    self.cell.init_state()


def makes_some(self):
    self.cells = [Cell(), Cell()]
    self.z = ShortTermState(brainstate.random.normal())


@pytest.mark.parametrize(
    ("init", "names"), [(makes_one, "cell"), (makes_some, "cells/0, cells/1")], ids=["one", "some"]
)
def test_modules_that_init_makes_are_named(init, names):
    result = shardinit.shard_new_states(module_of(init), axis_size=4)
    (note,) = [note for note in result.receipt.notes if "makes modules" in note]
    assert note.endswith(f": {names}")


def test_modules_that_the_constructor_makes_are_not():
    class Outer(brainstate.nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = Cell()

    assert shardinit.shard_new_states(Outer(), axis_size=4).receipt.notes == ()


def test_a_receipt_names_every_state_and_its_text_the_first():
    def init(self):
        for i in range(12):
            setattr(self, f"s{i}", ShortTermState(jnp.exp(brainstate.random.normal(size=(190, 190)))))

    result = shardinit.shard_new_states(module_of(init), axis_size=8)
    (note,) = result.receipt.notes
    assert all(f"s{i}" in note for i in range(12))
    assert "s4 and 7 more. A device's" in str(result.receipt)
    assert folded("nothing: to fold") == "nothing: to fold"


@pytest.mark.parametrize("value", ["hi", np.array(["a"]), print], ids=["text", "array of text", "function"])
def test_a_state_that_holds_no_array(value):
    def init(self):
        self.a = ShortTermState(value)

    with pytest.raises(
        shardinit.ArgumentTypeError, match=r"cannot keep a \(ShortTermState\): it holds .* not an array"
    ):
        shardinit.shard_new_states(module_of(init), axis_size=4)


def test_an_array_that_was_deleted_before():
    table = jnp.ones(3) * 2
    table.delete()

    def init(self):
        self.a = ShortTermState(table / 3 + brainstate.random.normal(size=(3,)))

    with pytest.raises(shardinit.DeletedArrayError, match=r"was deleted, float32\[3\], at .*test_one_run\.py"):
        shardinit.shard_new_states(module_of(init), axis_size=4)


def test_names_of_arguments_are_text():
    with pytest.raises(shardinit.ArgumentTypeError, match=r"init_kwargs has the key 1, which is .*int"):
        shardinit.shard_new_states(Cell(), {1: 2}, axis_size=4)


def test_a_plan_for_devices_of_another_kind():
    program = shardinit.discover(Cell())
    planned = shardinit.plan(program, "h100:1x8", axis_size=8)
    with pytest.raises(shardinit.PlanError, match=r"for gpu devices, these are cpu devices"):
        shardinit.compile(program, planned)
