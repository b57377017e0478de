"""The drop-ins return no receipt: what it would say is logged, once per text."""

import logging

import brainstate
import jax
import pytest
from brainstate import ShortTermState

import shardinit
from shardinit.api import drop_ins


class Fixed(brainstate.nn.Module):
    def init_state(self):
        self.v = ShortTermState(jax.random.normal(jax.random.key(0), (3,)))


@pytest.mark.parametrize("function", [shardinit.vmap2_new_states, shardinit.pmap2_new_states])
def test_notes_of_the_drop_ins_are_logged_once(function, caplog):
    drop_ins._log_once.cache_clear()
    with caplog.at_level(logging.WARNING, "shardinit"):
        for _ in range(3):
            function(Fixed(), {}, axis_size=8)
    logged = [r for r in caplog.records if r.name == "shardinit" and "same random numbers" in r.message]
    assert len(logged) == 1
    assert logged[0].levelno == logging.WARNING
