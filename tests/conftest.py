"""Every test sees 8 emulated CPU devices."""

import atexit
import gc
import os
import shutil
import tempfile
from pathlib import Path

import shardinit

COMPILED = "SHARDINIT_TESTS_COMPILED"  # a folder for what XLA compiles, the same for all workers of this run
if COMPILED not in os.environ:
    os.environ[COMPILED] = tempfile.mkdtemp(prefix="shardinit-tests-")
    atexit.register(shutil.rmtree, os.environ[COMPILED], ignore_errors=True)

shardinit.emulate_cpu(8)

import brainstate  # noqa: E402
import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from jax.sharding import AxisType, Mesh  # noqa: E402

from shardinit.compiler.executables import _executables  # noqa: E402

# Commands that tests start have no part in it: jaxlib 0.10.0 prints a line for each program that it reads.
jax.config.update("jax_compilation_cache_dir", os.environ[COMPILED])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


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
