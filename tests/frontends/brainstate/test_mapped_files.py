"""Files that are mapped into memory: read where nobody can write them, copied where init could."""

import brainstate
import numpy as np
import pytest
from brainstate import ParamState

import shardinit


class Loads(brainstate.nn.Module):
    def __init__(self, array):
        super().__init__()
        self._array = array

    def init_state(self):
        self.w = ParamState(self._array)


@pytest.fixture
def file(tmp_path):
    np.save(tmp_path / "w.npy", np.arange(12, dtype=np.float32))
    return tmp_path / "w.npy"


@pytest.mark.parametrize(("mode", "is_read"), [("r", True), ("c", False), ("r+", False)])
def test_a_file_mapped_for_reading_alone_is_not_copied(file, mode, is_read):
    mapped = np.load(file, mmap_mode=mode)
    program = shardinit.discover(Loads(mapped))
    assert np.shares_memory(program.program.outputs[0].atoms[0].value, mapped) == is_read


@pytest.mark.parametrize("mode", ["r", "c", "r+"])
def test_values_of_a_mapped_file(file, mode):
    module = Loads(np.load(file, mmap_mode=mode))
    shardinit.shard_new_states(module, axis_size=8)
    np.testing.assert_array_equal(module.w.value, [np.arange(12, dtype=np.float32)] * 8)


def test_a_view_for_reading_of_what_can_be_written_is_copied(file):
    mapped = np.load(file, mmap_mode="c")
    view = mapped[:]
    view.flags.writeable = False
    program = shardinit.discover(Loads(view))
    mapped[:] = 0
    assert program.program.outputs[0].atoms[0].value[3] == 3.0
