"""Many threads, and many different programs, in one process."""

import gc
import threading

import brainstate
import jax
import numpy as np
import pytest

import shardinit
from shardinit.compiler import executables as compiler
from tests import modules

THREADS = 8
LANES = 8


class Alike(brainstate.nn.Module):
    def init_state(self):
        self.w = brainstate.HiddenState(brainstate.random.normal(size=(3,)))
        self.v = brainstate.HiddenState(brainstate.random.uniform(size=(2,)) * 0.3)


def leaves_of(module) -> bytes:
    return b"".join(np.asarray(state.value).tobytes() for state in module.states(brainstate.HiddenState).values())


def in_threads(jobs) -> None:
    """Run functions in threads that start at once; none may fail or hang."""
    together, errors = threading.Barrier(len(jobs)), []

    def run(job):
        together.wait(60)
        try:
            job()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    assert not errors, errors


@pytest.mark.parametrize("init", [shardinit.vmap2_new_states, shardinit.pmap2_new_states])
def test_threads_that_share_a_random_state_draw_what_they_would_in_turn(init):
    brainstate.random.seed(5)
    expected = []
    for _ in range(THREADS):
        module = Alike()
        brainstate.transform.vmap2_new_states(module, {}, axis_size=LANES)
        expected.append(leaves_of(module))
    after = jax.random.key_data(brainstate.random.DEFAULT.value)
    assert len(set(expected)) == THREADS
    brainstate.random.seed(5)
    made = [Alike() for _ in range(THREADS)]
    in_threads([lambda m=m: init(m, {}, axis_size=LANES) for m in made])
    assert sorted(map(leaves_of, made)) == sorted(expected)
    np.testing.assert_array_equal(jax.random.key_data(brainstate.random.DEFAULT.value), after)


def test_threads_with_random_states_of_their_own_get_the_values_of_eager():
    class Own(brainstate.nn.Module):
        def __init__(self, number):
            super().__init__()
            self.number = number
            self.rng = brainstate.random.RandomState(number)

        def init_state(self):
            drawn = self.rng.normal(size=(3 + self.number % 3,))
            for _ in range(self.number):
                drawn = drawn * 0.5 + 1.0
            self.v = brainstate.HiddenState(drawn)

    expected = []
    for number in range(THREADS):
        module = Own(number)
        brainstate.transform.vmap2_new_states(module, {}, axis_size=LANES)
        expected.append(leaves_of(module))
    made = [Own(number) for number in range(THREADS)]
    in_threads([lambda m=m: shardinit.shard_new_states(m, axis_size=LANES) for m in made])
    assert [leaves_of(module) for module in made] == expected


def test_an_init_inside_of_init_does_not_wait_for_itself():
    class Outer(brainstate.nn.Module):
        def init_state(self):
            inner = modules.Inner(3)
            shardinit.vmap2_new_states(inner, {}, axis_size=2)
            self.v = brainstate.HiddenState(inner.v.value * 1.0)

    module = Outer()
    in_threads([lambda: shardinit.shard_new_states(module, axis_size=2)])
    assert module.v.value.shape == (2, 2, 3)


def test_many_programs_leave_a_bounded_number_of_executables(monkeypatch):
    class Small(brainstate.nn.Module):
        def __init__(self, number):
            super().__init__()
            self.number = number

        def init_state(self):
            drawn = brainstate.random.uniform(size=(2,))
            for bit in range(5):
                drawn = drawn * 0.5 if self.number >> bit & 1 else drawn + 0.25
            self.v = brainstate.HiddenState(drawn)

    cache = compiler._Cache(8, 2**20)
    monkeypatch.setattr(compiler, "_executables", cache)
    for number in range(20):
        shardinit.shard_new_states(Small(number), axis_size=2)
        assert len(cache.futures) <= 8
    gc.collect()
    before = len(jax.live_arrays())
    for number in range(20, 32):
        module = Small(number)
        brainstate.random.seed(3)
        shardinit.shard_new_states(module, axis_size=2)
    made = np.asarray(module.v.value)
    again = Small(31)
    brainstate.random.seed(3)
    brainstate.transform.vmap2_new_states(again, {}, axis_size=2)
    np.testing.assert_array_equal(made, np.asarray(again.v.value))
    del module, again
    gc.collect()
    assert len(jax.live_arrays()) <= before
