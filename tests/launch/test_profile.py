"""memory.prof is read as JAX writes it, and a broken one is refused."""

import gzip
import json
import os
import subprocess
import sys

import pytest

from shardinit.errors import ArgumentError
from shardinit.launch.profile import device_bytes

MAKE = """
import sys, json
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
devices = jax.devices()
mesh = Mesh(np.array(devices), ("lanes",))
held = {f"cpu:{number}": 0 for number in range(8)}
split = jax.device_put(np.zeros((64, 1000), np.float32), NamedSharding(mesh, P("lanes")))
copied = jax.device_put(np.zeros(100, np.float32), NamedSharding(mesh, P()))
uneven = [jax.device_put(np.zeros(10 * (n + 1), np.int8), d) for n, d in enumerate(devices)]
gone = jax.device_put(np.zeros(12345, np.float32), devices[3])
gone.delete()
compiled = jax.jit(lambda a: a @ a).lower(np.zeros((50, 50), np.float32)).compile()
for number in range(8):
    held[f"cpu:{number}"] = 8 * 1000 * 4 + 100 * 4 + 10 * (number + 1)
jax.profiler.save_device_memory_profile(sys.argv[1])
print(json.dumps(held))
"""


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    path = tmp_path_factory.mktemp("profile") / "memory.prof"
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8"}
    done = subprocess.run([sys.executable, "-c", MAKE, path], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return path, json.loads(done.stdout)


def test_each_device_holds_what_its_arrays_hold(profile):
    path, held = profile
    assert device_bytes(path) == held


def test_reading_needs_no_jax(profile):
    code = "import sys, pathlib; from shardinit.launch.profile import device_bytes as d; d(pathlib.Path(sys.argv[1]))"
    code += "; assert 'jax' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code, profile[0]], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_fields_that_are_not_known_are_passed_over(profile, tmp_path):
    path, held = profile
    newer = tmp_path / "memory.prof"
    newer.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + b"\xba\x06\x03abc" + b"\xc0\x06\x07"))
    assert device_bytes(newer) == held


def field(number, content):
    return bytes([number << 3 | 2, len(content)]) + content


def small(values, labels=b"\x08\x02\x10\x03", texts=("", "count", "kind", "buffer", "device", "tpu:7", "bytes")):
    """A profile by hand: one sample."""
    sample = values + field(3, labels) + field(3, b"\x08\x04\x10\x05")
    units = field(1, b"\x10\x01") + field(1, b"\x10\x06")
    return gzip.compress(units + field(2, sample) + b"".join(field(6, text.encode()) for text in texts))


@pytest.mark.parametrize("values", [field(2, b"\x01\xd2\x09"), b"\x10\x01\x10\xd2\x09"], ids=["packed", "one by one"])
def test_both_ways_to_write_numbers(tmp_path, values):
    (tmp_path / "memory.prof").write_bytes(small(values))
    assert device_bytes(tmp_path / "memory.prof") == {"tpu:7": 1234}


def test_programs_are_not_counted(tmp_path):
    texts = ("", "count", "kind", "executable", "device", "tpu:7", "bytes")
    (tmp_path / "memory.prof").write_bytes(small(field(2, b"\x01\x05"), texts=texts))
    assert device_bytes(tmp_path / "memory.prof") == {}


def flipped(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]


BREAKS = {
    "empty": lambda data: b"",
    "first half": lambda data: data[: len(data) // 2],
    "last byte missing": lambda data: data[:-1],
    "a byte flipped": flipped,
    "not zipped": gzip.decompress,
    "zipped, cut inside": lambda data: gzip.compress(gzip.decompress(data)[:-3]),
    "no profile": lambda data: gzip.compress(b"not a profile at all"),
    "zipped nothing": lambda data: gzip.compress(b""),
    "a text that is not there": lambda data: small(field(2, b"\x01\x05"), labels=b"\x08\x02\x10\x7f"),
    "too few values": lambda data: small(field(2, b"\x01")),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_file_is_an_error_that_names_it(profile, tmp_path, name):
    path = tmp_path / "memory.prof"
    path.write_bytes(BREAKS[name](profile[0].read_bytes()))
    with pytest.raises(ArgumentError, match=rf"cannot read {path} .*\(\d+ bytes\).*Give a whole file"):
        device_bytes(path)


def test_a_file_that_is_not_there_is_no_broken_one(tmp_path):
    with pytest.raises(FileNotFoundError):
        device_bytes(tmp_path / "memory.prof")
