"""Every test sees 8 emulated CPU devices."""

import atexit
import gc
import os
import shutil
import tempfile
from pathlib import Path

import shardinit

if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # compiled once for all workers and processes of this run
    folder = tempfile.mkdtemp(prefix="shardinit-tests-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ |= {
        "JAX_COMPILATION_CACHE_DIR": folder,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }

shardinit.emulate_cpu(8)

import brainstate  # noqa: E402
import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from jax.sharding import AxisType, Mesh  # noqa: E402

from shardinit.compile.compiler import _executables  # noqa: E402


@pytest.fixture(autouse=True)
def seeded():
    """Start every test from the same key."""
    brainstate.random.seed(42)


@pytest.fixture(autouse=True, scope="module")
def few_mappings():
    """Forget compiled code in time: it is mapped memory, and a process may have 65,530 mappings, then XLA crashes."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > 10_000:
        _executables.futures.clear()
        _executables.sizes.clear()
        jax.clear_caches()
        gc.collect()


def mesh_of(*shape, names=("lanes", "model")):
    count = int(np.prod(shape))
    return Mesh(
        np.array(jax.devices()[:count]).reshape(shape), names[: len(shape)], axis_types=(AxisType.Auto,) * len(shape)
    )


@pytest.fixture(params=[(1,), (2,), (4,), (8,), (4, 2), (2, 4), (1, 8), (8, 1)], ids=lambda s: "x".join(map(str, s)))
def mesh(request):
    return mesh_of(*request.param)
