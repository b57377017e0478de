"""The examples initialize like brainstate, and the spiking network runs on with its lanes still sharded."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import shardinit
from tests.reference import assert_like_brainstate

EXAMPLES = Path(__file__).parent.parent / "examples"
SMALL = {"mlp96": {"layers": 3}, "deep_rnn": {"layers": 2, "size": 16}, "ei_network": {"exc": 40, "inh": 10}}


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", SMALL)
def test_example(name):
    example = load(name)
    _, result = assert_like_brainstate(
        lambda: example.build(**SMALL[name]), lambda m: shardinit.shard_new_states(m, axis_size=16), axis_size=16
    )
    assert set(result.receipt.measured_bytes.values()) == {result.plan.bytes_per_device}


def test_spiking_network_is_simulated_and_drawn(tmp_path):
    picture = tmp_path / "raster.png"
    command = [sys.executable, str(EXAMPLES / "ei_network.py"), "--exc", "80", "--inh", "20", "--axis-size", "8"]
    command += ["--devices", "4", "--duration", "5", "--output", str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
