"""The control channel, over real sockets of this machine."""

import asyncio
import json
import socket

import pytest

from shardinit.launch import control
from shardinit.launch.control import Hub, Spoke, job_secret, meet
from shardinit.launch.exits import End
from tests.multiprocess.jobs import free_port


@pytest.fixture
def coordinator():
    return f"127.0.0.1:{free_port()}"


def together(*attempts):
    async def run():
        return await asyncio.wait_for(asyncio.gather(*attempts), 30)

    return asyncio.run(run())


def test_all_meet(coordinator):
    assert together(*(meet(rank, 4, coordinator, 10) for rank in (2, 0, 3, 1))) == [None] * 4


def test_who_is_missing_is_named_to_all(coordinator):
    ends = together(*(meet(rank, 5, coordinator, 1.0) for rank in (0, 1, 4)))
    assert [end.code for end in ends] == [10] * 3
    assert len({end.why for end in ends}) == 1
    assert ends[0].why.startswith("ranks 2, 3 of 5 never came (waited 1 s)")


def test_rank_0_that_never_comes_is_named(coordinator):
    (end,) = together(meet(1, 2, coordinator, 1.0))
    port = int(coordinator.split(":")[1]) + 1
    assert end.code == 10
    assert f"rank 0 never came: its control channel at 127.0.0.1:{port} was not reached within 1 s" in end.why


def test_a_port_in_use_is_named(coordinator):
    port = int(coordinator.split(":")[1]) + 1
    with socket.socket() as held:
        held.bind(("", port))
        held.listen()
        (end,) = together(meet(0, 2, coordinator, 1.0))
    assert end.code == 10
    assert f"rank 0 cannot listen on port {port}" in end.why


def test_other_numbers_of_processes_are_a_disagreement(coordinator):
    ends = together(meet(0, 2, coordinator, 2.0), meet(1, 3, coordinator, 2.0))
    assert ends[0].code == 12
    assert "was started for processes=3, rank 0 for processes=2" in ends[0].why


def test_a_rank_that_comes_twice_is_named(coordinator):
    ends = together(*(meet(rank, 3, coordinator, 2.0) for rank in (0, 1, 1)))
    assert ends[0].code == 2
    assert "rank 1 came twice" in ends[0].why


def stranger(port, text, reads=False):
    async def talk():
        for _ in range(100):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                break
            except OSError:
                await asyncio.sleep(0.01)
        try:
            writer.write(text)
            await writer.drain()
        except OSError:
            return
        if not reads:
            writer.close()

    return talk()


SELF = json.dumps({"hello": {"rank": 1, "processes": 2, "host": "h", "pid": 1, "proof": "0" * 64}}).encode() + b"\n"
WRONG = json.dumps({"hello": {"rank": 1, "processes": 2, "host": "h", "pid": 1, "proof": "\ud800"}}).encode() + b"\n"
GARBAGE = [
    bytes(range(256)) * 8,
    b"half a li",
    b"x" * 2**20,
    b"[" * 9000 + b"\n",
    b"\xff\xfe\n",
    SELF,
    WRONG,
    b"null\n",
]


@pytest.mark.parametrize("stays", [False, True], ids=["goes", "stays"])
def test_garbage_and_what_shows_no_secret_is_dropped(coordinator, stays):
    port = int(coordinator.split(":")[1]) + 1
    strangers = [stranger(port, text, stays) for text in GARBAGE]
    ends = together(meet(0, 2, coordinator, 10), *strangers, _after(0.5, meet(1, 2, coordinator, 10)))
    assert (ends[0], ends[-1]) == (None, None)


def test_a_rank_of_another_job_is_not_let_in(coordinator, monkeypatch):
    port = int(coordinator.split(":")[1]) + 1

    async def run():
        hub, spoke = Hub(0, 2, "127.0.0.1", port, secret="ours"), Spoke(1, 2, "127.0.0.1", port, secret="theirs")
        await hub.open()
        await spoke.open()
        await _until(lambda: spoke.ends)
        await spoke.close()
        await hub.close()
        return hub

    hub = together(run())[0]
    assert (hub.everyone_came, hub.ends, hub.peers) == (False, [], {})


def test_a_loopback_coordinator_listens_on_loopback_alone(coordinator):
    port = int(coordinator.split(":")[1]) + 1

    async def run():
        hub = Hub(0, 2, "127.0.0.1", port)
        await hub.open()
        names = [each.getsockname()[0] for each in hub.server.sockets]
        await hub.close()
        return names

    assert together(run()) == [["127.0.0.1"]]


def test_the_secret_is_the_jobs_own():
    assert job_secret({"SHARDINIT_JOB_SECRET": "s", "SLURM_JOB_ID": "7"}) == "s"
    assert job_secret({"SLURM_JOB_ID": "7"}) == "7"
    assert job_secret({}) == ""


def test_strangers_are_left_alone(coordinator):
    port = int(coordinator.split(":")[1]) + 1

    async def scan():
        for text in (b"GET / HTTP/1.1\r\n\r\n", b"", b"[1]\n", b'{"hello": 1}\n', b'{"hello": {"rank": 1}}\n'):
            for _ in range(100):
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    break
                except OSError:
                    await asyncio.sleep(0.01)
            writer.write(text)
            await writer.drain()
            writer.close()

    assert together(meet(0, 2, coordinator, 10), scan(), _after(0.5, meet(1, 2, coordinator, 10)))[::2] == [None, None]


async def _after(seconds, attempt):
    await asyncio.sleep(seconds)
    return await attempt


async def _open_pair(coordinator):
    port = int(coordinator.split(":")[1]) + 1
    hub, spoke = Hub(0, 2, "127.0.0.1", port), Spoke(1, 2, "127.0.0.1", port)
    await hub.open()
    await spoke.open()
    await _until(lambda: hub.everyone_came and spoke.everyone_came)
    return hub, spoke


async def _until(condition, seconds=10.0):
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise TimeoutError


def test_ends_are_reported_and_the_verdict_comes_back(coordinator):
    async def run():
        hub, spoke = await _open_pair(coordinator)
        spoke.report(End(1, 4, "rank 1 failed"))
        await _until(lambda: hub.ends)
        await hub.give_verdict(hub.ends[0])
        await _until(lambda: spoke.ends)
        await spoke.close()
        await hub.close()
        return hub.ends[0], spoke.ends[0]

    assert together(run()) == [(End(1, 4, "rank 1 failed"), End(1, 4, "rank 1 failed"))]


def test_a_connection_that_closes_is_a_rank_lost(coordinator):
    async def run():
        hub, spoke = await _open_pair(coordinator)
        await spoke.close()
        await _until(lambda: hub.ends)
        await hub.close()
        return hub.ends[0]

    (end,) = together(run())
    assert (end.rank, end.code) == (1, 11)
    assert "is gone" in end.why


def test_the_loss_of_rank_0_is_seen_by_the_others(coordinator):
    async def run():
        hub, spoke = await _open_pair(coordinator)
        await hub.close()
        await _until(lambda: spoke.ends)
        await spoke.close()
        return spoke.ends[0]

    (end,) = together(run())
    assert (end.rank, end.code) == (0, 11)


def test_silence_is_a_rank_lost(coordinator, monkeypatch):
    monkeypatch.setattr(control, "SILENCE_SECONDS", 0.5)
    monkeypatch.setattr(control, "PING_SECONDS", 60.0)

    async def run():
        hub, spoke = await _open_pair(coordinator)
        await _until(lambda: hub.ends and spoke.ends)
        await spoke.close()
        await hub.close()
        return hub.ends[0]

    (end,) = together(run())
    assert end.code == 11
    assert "nothing came from its supervisor for 0.5 s" in end.why


def test_all_done(coordinator):
    async def run():
        hub, spoke = await _open_pair(coordinator)
        spoke.report_done()
        await asyncio.sleep(0.1)
        assert not hub.everyone_done
        hub.report_done()
        await _until(lambda: hub.everyone_done and spoke.everyone_done)
        await hub.close()
        await spoke.close()
        return spoke.ends

    assert together(run()) == [[]]
