"""Every test sees 8 emulated CPU devices."""

import shardinit

shardinit.emulate_cpu(8)

import brainstate  # noqa: E402
import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from jax.sharding import AxisType, Mesh  # noqa: E402


@pytest.fixture(autouse=True)
def seeded():
    """Start every test from the same key."""
    brainstate.random.seed(42)


def mesh_of(*shape, names=("lanes", "model")):
    count = int(np.prod(shape))
    return Mesh(
        np.array(jax.devices()[:count]).reshape(shape), names[: len(shape)], axis_types=(AxisType.Auto,) * len(shape)
    )


@pytest.fixture(params=[(1,), (2,), (4,), (8,), (4, 2), (2, 4), (1, 8), (8, 1)], ids=lambda s: "x".join(map(str, s)))
def mesh(request):
    return mesh_of(*request.param)
