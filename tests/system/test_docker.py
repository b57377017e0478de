"""The CPU image on a real Docker engine: alone, and as the four processes of docker/compose.yaml."""

import time

import pytest
import yaml

from tests.system.engine import IMAGE
from tests.system.processes import ROOT, wait_until

RANKS = range(4)
LOCKED = ("--read-only", "--tmpfs=/tmp", "--network=none", "--cap-drop=ALL", "--security-opt=no-new-privileges")


@pytest.fixture(scope="session")
def image(engine):
    engine.build()
    return engine


class Mesh:
    """The containers of docker/compose.yaml."""

    def __init__(self, engine, project, files=()):
        self.engine, self.project, self.files = engine, project, files

    def compose(self, *arguments, **variables):
        files = [part for file in self.files for part in ("--file", file)]
        return self.engine.compose(*files, *arguments, project=self.project, **variables)

    def names(self):
        return [self.compose("ps", "--quiet", f"rank{rank}").strip() for rank in RANKS]

    def state(self, name):
        return self.engine.inspect(name)["State"]

    def is_healthy(self):
        return all(self.state(name)["Health"]["Status"] == "healthy" for name in self.names())

    def codes(self, seconds):
        """Wait until every container has ended: exit codes, and seconds that it took."""
        names = self.names()
        took = wait_until(lambda: not any(self.state(n)["Running"] for n in names), seconds, "all have ended")
        return [self.state(name)["ExitCode"] for name in names], took

    def logs(self):
        return [self.engine.docker("logs", name) for name in self.names()]


@pytest.fixture
def mesh(image):
    made = Mesh(image, "mesh")
    yield made
    made.compose("down", "--timeout", "1")


@pytest.fixture
def slow_mesh(image, tmp_path):
    """A mesh that is up, healthy and busy."""
    service = {
        "volumes": [f"{ROOT}/tests/system/targets.py:/app/targets.py:ro"],
        "healthcheck": {"test": ["CMD", "healthy"], "interval": "1s", "timeout": "5s", "start_period": "60s"},
    }
    file = tmp_path / "slow.yaml"
    file.write_text(yaml.safe_dump({"services": {f"rank{rank}": service for rank in RANKS}}))
    made = Mesh(image, "slow", [file])
    try:
        made.compose("up", "--detach", TARGET="targets.py:slow")
        wait_until(lambda: all("slow begins" in log for log in made.logs()), 90, "all ranks are busy")
        wait_until(made.is_healthy, 60, "all containers are healthy")
        yield made
    finally:
        made.compose("down", "--timeout", "1")


def test_the_image_is_small_and_nobodys_root(image, capsys):
    found = image.inspect(IMAGE)
    layers = [
        line.split("\t") for line in image.docker("history", "--format={{.Size}}\t{{.CreatedBy}}", IMAGE).splitlines()
    ]
    with capsys.disabled():
        print(f"\n{IMAGE}: {found['Size'] / 1e6:.0f} MB, of which")
        for size, made_by in layers:
            if not size.startswith("0"):
                print(f"  {size:>7}  {made_by[:90]}")
    assert found["Size"] < 720e6
    assert found["Config"]["User"] == "1000:1000"


def test_one_container_without_network_on_eight_devices(image):
    arguments = ("run", "examples/mlp96.py:build", "--axis-size=16", "--devices=8")
    text = image.docker("run", "--rm", *LOCKED, IMAGE, *arguments, seconds=120)
    assert "on each of 8 devices, equal to the plan" in text


def test_four_containers_initialize_as_one(mesh):
    mesh.compose("up", "--detach")
    codes, _ = mesh.codes(120)
    logs = mesh.logs()
    assert codes == [0, 0, 0, 0], logs
    assert logs[0].count("MiB   equal to the plan") == 4, logs[0]


def test_containers_reach_only_each_other_and_write_nothing(slow_mesh):
    for rank, name in enumerate(slow_mesh.names()):
        slow_mesh.engine.docker("exec", name, "getent", "hosts", f"rank{(rank + 1) % 4}")
        found = slow_mesh.engine.inspect(name)
        assert found["HostConfig"]["ReadonlyRootfs"]
        assert found["HostConfig"]["CapDrop"] == ["ALL"]
        (network,) = found["NetworkSettings"]["Networks"]
        assert slow_mesh.engine.inspect(network)["Internal"]


def test_a_killed_container_ends_the_others(slow_mesh):
    slow_mesh.engine.docker("kill", slow_mesh.names()[2])
    codes, took = slow_mesh.codes(30)
    logs = slow_mesh.logs()
    assert codes == [11, 11, 137, 11], logs
    assert took < 15
    for rank in (0, 1, 3):
        assert "shardinit: rank 2 (host " in logs[rank], logs[rank]


@pytest.mark.parametrize("stopped", [["rank1"], []], ids=["one", "all"])
def test_docker_stop_is_code_13(slow_mesh, stopped):
    started = time.monotonic()
    slow_mesh.compose("stop", "--timeout", "20", *stopped)
    codes, _ = slow_mesh.codes(20)
    logs = slow_mesh.logs()
    assert codes == [13, 13, 13, 13], logs
    assert time.monotonic() - started < 15  # of the 20 s until SIGKILL
    assert all("supervisor was asked to end by SIGTERM" in log for log in logs), logs
