"""Texts between processes: a rank that failed and tries again gets new texts or an error, and no keys pile up."""

from tests.multiprocess.jobs import run_script

BEFORE = """
import os
import jax
import shardinit
from shardinit.errors import DisagreementError, JoinError
from shardinit.backend.exchange import agree, exchange
from shardinit.backend.private_jax import distributed_state
os.environ["SHARDINIT_PEER_TIMEOUT"] = "20"
RANKS = tuple(range(len(jax.devices())))  # starts the backend, which needs all of them
def attempt(title, make, *arguments):
    try:
        print(title, make(*arguments), flush=True)
    except (DisagreementError, JoinError) as error:
        print(title, type(error).__name__, error, flush=True)
def together(name):
    distributed_state.client.wait_at_barrier(name, 60_000)
"""


def lines_of(printed: list[str], title: str) -> list[str]:
    """What each rank printed under a title."""
    return [next(line for line in text.splitlines() if line.startswith(f"{title} ")) for text in printed]


def test_a_rank_that_failed_before_a_round_never_reads_old_texts():
    printed = run_script(
        BEFORE
        + """
for failing in RANKS:  # the first rank, which answers the others, among them
    exchange("first", f"first of {rank}", RANKS)
    if rank != failing:
        attempt(f"APART{failing}", exchange, "second", "old", RANKS)
    else:  # it failed after the first round and starts again alone
        attempt(f"APART{failing}", exchange, "first", "again", RANKS)
    together(f"apart {failing}")
    attempt(f"FIRST{failing}", exchange, "first", f"new first of {rank}", RANKS)
    attempt(f"SECOND{failing}", exchange, "second", f"new second of {rank}", RANKS)
""",
        3,
        1,
    )
    for failing, names in enumerate(
        ("first on rank 0; second on ranks 1, 2", "second on ranks 0, 2; first on rank 1", "first on rank 2")
    ):
        apart = lines_of(printed, f"APART{failing}")
        assert len(set(apart)) == 1
        assert "DisagreementError the 3 processes do not wait for the same thing" in apart[0]
        assert names in apart[0]
        for step in ("first", "second"):
            expected = f"{step.upper()}{failing} {[f'new {step} of {rank}' for rank in range(3)]}"
            assert lines_of(printed, f"{step.upper()}{failing}") == [expected] * 3


def test_a_rank_that_came_too_late_is_an_error_in_all_and_the_next_try_works():
    printed = run_script(
        BEFORE
        + """
for missing in RANKS:
    together(f"start {missing}")
    if rank != missing:
        attempt(f"LATE{missing}", lambda: exchange("text", "old", RANKS, 2.0))
    together(f"late {missing}")
    if rank == missing:  # what the others sent is gone
        attempt(f"LATE{missing}", lambda: exchange("text", "late", RANKS, 0.2))
    together(f"gone {missing}")
    attempt(f"NEXT{missing}", exchange, "text", f"new of {rank}", RANKS)
""",
        3,
        1,
    )
    for missing in range(3):
        for rank, line in enumerate(lines_of(printed, f"LATE{missing}")):
            assert "JoinError rank" in line
            if rank != missing:
                assert f"rank {missing} of 3 did not send 'text' within 2 s" in line
        assert lines_of(printed, f"NEXT{missing}") == [f"NEXT{missing} {[f'new of {r}' for r in range(3)]}"] * 3


def test_keys_do_not_pile_up():
    printed = run_script(
        BEFORE
        + """
for number in range(50):
    agree(f"program {number % 3}", {"number": str(number)}, RANKS)
    if number % 10 == 0:
        attempt("DIFFER", agree, "other", {"rank": str(rank)}, RANKS)
        together(f"differ {number}")
        attempt("APART", exchange, f"of {rank}", "text", RANKS)
together("counted")
print("KEYS", len(distributed_state.client.key_value_dir_get("shardinit")))
together("done")
""",
        2,
        1,
    )
    assert lines_of(printed, "KEYS") == ["KEYS 2"] * 2


def test_init_that_failed_on_one_rank_gives_right_values_when_all_try_again():
    printed = run_script(
        BEFORE
        + """
import brainstate
import numpy as np
from shardinit.compiler import compile as compiling
class Draws(brainstate.nn.Module):
    def init_state(self):
        self.v = brainstate.ShortTermState(brainstate.random.normal(size=(64,)))
def make():
    brainstate.random.seed(number)
    module = Draws()
    shardinit.shard_new_states(module, axis_size=2)
    return [float(shard.data[0, 0]) for shard in module.v.value.addressable_shards]
def fails(*arguments):
    raise ValueError("no space left")
number, group = 1, compiling.group
if rank == 1:  # after the first round, before the second
    compiling.group = fails
    try:
        make()
    except ValueError:
        compiling.group = group
attempt("APART", make)
together("apart")
number = 2
attempt("VALUES", make)
module = Draws()
brainstate.random.seed(2)
brainstate.transform.vmap2_new_states(module, {}, axis_size=2)
print("EAGER", [float(module.v.value[rank, 0])])
""",
        2,
        1,
    )
    assert all("DisagreementError the 2 processes do not wait for" in line for line in lines_of(printed, "APART"))
    values = [line.removeprefix("VALUES ") for line in lines_of(printed, "VALUES")]
    assert values == [line.removeprefix("EAGER ") for line in lines_of(printed, "EAGER")]
