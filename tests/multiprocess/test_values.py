"""Values and memory do not depend on the number of processes, and no collective is needed."""

import brainstate
import numpy as np
import pytest

from tests import modules
from tests.multiprocess.jobs import run_script, whole_arrays
from tests.multiprocess.rank import leaves_of

LANES = 16

MAKE_ALL = """
import brainstate, shardinit
from tests import modules
from tests.multiprocess.rank import write_shards
for name, strategy, lanes in job["cases"]:
    brainstate.random.seed(7)
    module = getattr(modules, name)()
    result = shardinit.shard_new_states(module, axis_size=lanes, strategy=strategy)
    write_shards(job["folder"], f"{name}-{strategy}-{lanes}", result.states)
    held = result.receipt.measured_bytes
    own = int(os.environ["JAX_NUM_CPU_DEVICES"])
    assert len(held) == own or (len(held) < own and lanes % 8), held  # lanes that do not divide leave some idle
    assert set(held.values()) <= {result.receipt.planned_bytes}, (name, strategy, held, result.receipt.planned_bytes)
"""


def brainstates_leaves(name: str, lanes: int) -> list[np.ndarray]:
    """Leaves of brainstate's own eager initialization."""
    brainstate.random.seed(7)
    module = getattr(modules, name)()
    return [np.asarray(leaf) for leaf in leaves_of(brainstate.transform.vmap2_new_states(module, {}, axis_size=lanes))]


def assert_same_bits(mine: np.ndarray, theirs: np.ndarray) -> None:
    """Files keep no bfloat16, but its bytes."""
    assert (mine.shape, mine.itemsize) == (theirs.shape, theirs.itemsize)
    assert mine.tobytes() == theirs.tobytes()


@pytest.mark.parametrize(("processes", "devices"), [(1, 8), (2, 4), (4, 2), (8, 1)])
def test_the_same_bits_however_devices_are_spread_over_processes(processes, devices, tmp_path):
    cases = [(name, strategy, LANES) for name in ("Values", "Nested") for strategy in ("shard_map", "vmap", "gspmd")]
    cases += [("Draws", "shard_map", LANES), ("Draws", "gspmd", LANES), ("Orthogonal", "auto", 12)]
    cases += [("Table", "auto", 1)]  # one lane, split over the devices, and the table with it
    run_script(MAKE_ALL, processes, devices, cases=cases, folder=str(tmp_path), timeout=400)
    for name, strategy, lanes in cases:
        found = whole_arrays(tmp_path, f"{name}-{strategy}-{lanes}", processes)
        expected = brainstates_leaves(name, lanes)
        assert len(found) == len(expected)
        for mine, theirs in zip(found, expected, strict=True):
            assert_same_bits(mine, theirs)


def test_no_collective_is_needed(tmp_path):
    code = (
        MAKE_ALL
        + """
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
x = jax.make_array_from_callback((8,), NamedSharding(Mesh(jax.devices(), ("lanes",)), P("lanes")),
                                 lambda index: __import__("numpy").ones(8)[index])
print("MADE", flush=True)
print(float(jax.jit(lambda x: x.sum())(x)))
"""
    )
    cases = [(name, strategy, LANES) for name in ("Draws", "Values") for strategy in ("shard_map", "vmap")]
    cases += [("Nested", "gspmd", LANES)]
    printed = run_script(code, 2, 4, cases=cases, folder=str(tmp_path), collectives=False, dies=True)
    for text in printed:  # everything is made, and then the first collective kills the process
        assert "MADE" in text
        assert "coordination.CoordinationService" in text.split("MADE")[1]
    for name, strategy, lanes in cases:
        found = whole_arrays(tmp_path, f"{name}-{strategy}-{lanes}", 2)
        for mine, theirs in zip(found, brainstates_leaves(name, lanes), strict=True):
            assert_same_bits(mine, theirs)


def test_pmap_is_over_the_local_devices(tmp_path):
    code = """
import brainstate, jax, shardinit
from tests import modules
brainstate.random.seed(7)
module = modules.Nested()
shardinit.pmap2_new_states(module, {})
assert module.first.v.value.shape == (jax.local_device_count(), 3)
assert module.first.v.value.is_fully_addressable
"""
    run_script(code, 2, 4)


def test_memory_of_a_process_stays_flat_as_processes_are_added(tmp_path):
    """The same lanes per device, on more processes: none makes or fetches another's shard."""
    code = """
import brainstate, shardinit, psutil, jax, threading, time
class Big(brainstate.nn.Module):
    def init_state(self):
        for i in range(8):
            setattr(self, f"w{i}", brainstate.ParamState(brainstate.random.normal(size=(1024, 1024))))
brainstate.random.seed(0)
module = Big()
first = Big()  # it compiles, and stays, so that what grows afterwards is data
shardinit.shard_new_states(first, axis_size=len(jax.devices()))
process, peak, done = psutil.Process(), [0], threading.Event()
def watch():
    while not done.wait(0.01):
        peak[0] = max(peak[0], process.memory_info().rss)
before = process.memory_info().rss
threading.Thread(target=watch, daemon=True).start()
result = shardinit.shard_new_states(module, axis_size=len(jax.devices()))
done.set()
print("GROWN", peak[0] - before)
"""
    share = 2 * 8 * 2**22  # two devices, eight states, one lane of 4 MiB
    grown = {}
    for processes in (1, 2, 4):
        printed = run_script(code, processes, 2)
        grown[processes] = max(int(text.split("GROWN")[1]) for text in printed)
    assert grown[1] > share / 2, grown  # or nothing was measured
    # Fetching the others' shards would add a share with two processes, three with four.
    assert max(grown[2], grown[4]) < grown[1] + share / 2, grown


def test_states_that_all_lanes_share_are_equal_on_all_processes(tmp_path):
    printed = run_script(
        """
import brainstate, shardinit, jax, numpy as np
class Shared(brainstate.nn.Module):
    def init_state(self):
        self.v = brainstate.ShortTermState(brainstate.random.normal(size=(3,)))
        self.shared = shardinit.NonBatchState(np.full(3, own))
brainstate.random.seed(0)
own = float(rank)
try:
    shardinit.shard_new_states(Shared(), axis_size=8)
except shardinit.DisagreementError as error:
    print(error)
class Computed(brainstate.nn.Module):
    def init_state(self):
        self.v = brainstate.ShortTermState(brainstate.random.normal(size=(3,)))
        self.shared = shardinit.NonBatchState(jax.numpy.arange(3.0) + 1.0)
from shardinit.api import execute as execution
produce = execution.produce
def run_on_a_bad_device(*arguments):  # one bit of what rank 1 holds falls over
    made = produce(*arguments)
    for number, value in enumerate(made.values):
        if rank == 1 and value.is_fully_replicated:
            shards = [s.data.at[0].add(1.0) for s in value.addressable_shards]
            made.values[number] = jax.make_array_from_single_device_arrays(value.shape, value.sharding, shards)
    return made
execution.produce = run_on_a_bad_device
computed = Computed()
try:
    shardinit.shard_new_states(computed, axis_size=8)
except shardinit.DisagreementError as error:
    print("AFTERWARDS", str(error).replace(chr(10), "; "), hasattr(computed, "shared"))
execution.produce = produce
own = 1.0
result = shardinit.shard_new_states(Shared(), axis_size=8)
print("EQUAL", np.asarray(result.states[None][0].value))
""",
        2,
        4,
    )
    for text in printed:
        assert "pieces:" in text
        assert "EQUAL [1. 1. 1.]" in text
        assert "AFTERWARDS" in text
        after = text.split("AFTERWARDS")[1].splitlines()[0]
        assert "shared, array 0" in after
        assert after.endswith("False")


def test_ranks_that_would_compute_otherwise_all_stop_with_the_same_message(tmp_path):
    code = """
import brainstate, shardinit, jax, numpy as np
from tests import modules
def attempt(title, make, **options):
    try:
        make(**options)
    except shardinit.DisagreementError as error:
        print(title, str(error).replace(chr(10), "; "))
    else:
        print(title, "went on")
brainstate.random.seed(7)
attempt("PLAN", shardinit.shard_new_states, module=modules.Nested(), axis_size=8 if rank else 16)
attempt("PIECES", shardinit.shard_new_states, module=modules.Inner(3 + rank), axis_size=8)
class Own(brainstate.nn.Module):
    def init_state(self):
        self.v = brainstate.ShortTermState(brainstate.random.normal(size=(3,)) * (1.0 + rank))
class Closed(brainstate.nn.Module):
    def init_state(self):
        table = kind(np.where(np.arange(5000) == 2500, 1.0 + rank, 1.0).astype(np.float32))
        self.v = brainstate.ShortTermState(jax.jit(lambda x: x + table)(brainstate.random.normal(size=(5000,))))
for kind in (np.asarray, jax.numpy.asarray):
    attempt("CLOSED" + kind.__module__[:1].upper(), shardinit.shard_new_states, module=Closed(), axis_size=8)
attempt("LITERAL", shardinit.shard_new_states, module=Own(), axis_size=8)
module = modules.Inner(3)
result = shardinit.shard_new_states(module, axis_size=8)
before = module.v.value
attempt("RERUN", result.rerun, key=rank)
assert module.v.value is before
brainstate.random.seed(rank)
attempt("SEED", shardinit.shard_new_states, module=modules.Inner(3), axis_size=8)
brainstate.random.seed(1)
attempt("ALIKE", shardinit.shard_new_states, module=modules.Inner(3), axis_size=8)
"""
    printed = run_script(code, 2, 4)
    texts = [[line for line in text.splitlines() if line.split(" ")[0].isupper()] for text in printed]
    assert texts[0] == texts[1]
    found = {line.split(" ")[0]: line for line in texts[0]}
    assert "plan: " in found["PLAN"]
    assert "axis_size=16" in found["PLAN"]
    assert "pieces: " in found["PIECES"]
    assert "pieces: " in found["LITERAL"]
    closed = [line for name, line in found.items() if name.startswith("CLOSED")]
    assert len(closed) == 2
    assert all("pieces: " in line for line in closed)
    assert "random state 0 (its key): " in found["RERUN"]
    assert "random state 0 (its key): " in found["SEED"]
    assert found["ALIKE"] == "ALIKE went on"


def test_a_rank_that_does_not_take_part_is_named(tmp_path):
    code = """
import os, shardinit, time
os.environ["SHARDINIT_PEER_TIMEOUT"] = "3"
from tests import modules
import brainstate, jax
brainstate.random.seed(0)
if rank == 1:
    time.sleep(6)
else:
    try:
        shardinit.shard_new_states(modules.Inner(3), axis_size=8)
    except shardinit.JoinError as error:
        print(error)
jax.distributed.shutdown()
"""
    printed = run_script(code, 2, 4)
    assert "rank 1 of 2 did not send 'host memory' within 3 s" in printed[0]


def test_checks_name_the_lane_of_the_process_that_has_it(tmp_path):
    """A check of one lane fires in the process that computes this lane, and says what brainstate would."""
    code = """
import brainstate, shardinit, jax, jax.numpy as jnp
class Checked(brainstate.nn.Module):
    def init_state(self):
        lane = brainstate.random.uniform(size=())
        self.v = brainstate.ShortTermState(lane)
        jax.debug.callback(lambda x: seen.append(float(x)), lane)
seen = []
brainstate.random.seed(0)
module = Checked()
shardinit.shard_new_states(module, axis_size=8)
own = sorted(float(s.data[0]) for s in module.v.value.addressable_shards)
print("SEEN", sorted(seen) == own, len(seen))
"""
    for text in run_script(code, 2, 4):
        assert "SEEN True 4" in text


def test_callbacks_of_processes_that_do_not_agree():
    """Each process asks its host once; answers that differ, though all lanes share them, are an error."""
    code = """
import brainstate, shardinit, jax, jax.numpy as jnp, numpy as np
class Asks(brainstate.nn.Module):
    def init_state(self):
        answer = jax.pure_callback(lambda: (asked.append(0), np.int32(said))[1], jax.ShapeDtypeStruct((), jnp.int32))
        self.v = brainstate.ShortTermState(brainstate.random.randint(0, 9, size=()) * answer)
for said in (3, rank):
    asked = []
    brainstate.random.seed(0)
    module = Asks()
    try:
        shardinit.shard_new_states(module, axis_size=8)
        print("MADE", len(asked))
    except shardinit.DisagreementError as error:
        print("REFUSED", "callback 0" in str(error), len(asked), module.states())
"""
    for text in run_script(code, 2, 4):
        assert "MADE 1" in text
        assert "REFUSED True 1 {}" in text
