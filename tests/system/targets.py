"""Targets that do not end well."""

import time

import brainstate
import jax


class Failing(brainstate.nn.Module):
    """Raises on rank 2 alone."""

    def init_state(self):
        if jax.process_index() == 2:
            raise ValueError("rank 2 has had enough")
        self.w = brainstate.ParamState(brainstate.random.normal(size=(8,)))


class Slow(brainstate.nn.Module):
    """Never comes to an end."""

    def init_state(self):
        print("slow begins", flush=True)
        time.sleep(600)


def failing() -> brainstate.nn.Module:
    return Failing()


def slow() -> brainstate.nn.Module:
    return Slow()
