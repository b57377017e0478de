"""How many bytes an array takes in a device's memory: its own, and what the layout adds."""

import math
from collections.abc import Sequence

TPU_LANES, TPU_SUBLANES, TPU_GRANULE = 128, 8, 512


def platform_family(platform: str) -> str:
    """Name the family whose memory rules hold: ``cpu``, ``tpu``, or ``gpu`` for all others."""
    return platform if platform in ("cpu", "tpu") else "gpu"


def laid_out_bytes(shape: Sequence[int], itemsize: int, platform: str) -> int:
    """Bytes that an array takes on a device of that platform.

    On TPU the last two axes of the layout are padded to tiles of up to 8 x 128 elements, and XLA chooses as
    last two the axes that waste least (read off libtpu 0.0.42: ``f32[100,3,5]`` takes 5 x 4 x 128 elements).
    CPU and CUDA add nothing.

    Parameters
    ----------
    shape
        Shape of one device's shard.
    itemsize
        Bytes per element.
    platform
        ``cpu``, ``gpu`` or ``tpu``.

    Examples
    --------
    >>> laid_out_bytes((100, 3, 5), 4, "cpu"), laid_out_bytes((100, 3, 5), 4, "tpu")
    (6000, 10240)
    """
    size = math.prod(shape) * itemsize
    if platform != "tpu":
        return size
    axes = list(shape) or [1]
    if 0 in axes:
        return TPU_GRANULE
    elements = math.prod(axes)
    best = min(
        elements // (last * second) * _up(last, TPU_LANES) * _sublanes(second, itemsize)
        for i, last in enumerate(axes)
        for second in ([n for j, n in enumerate(axes) if j != i] or [1])
    )
    return _up(best * itemsize, TPU_GRANULE)


def _sublanes(size: int, itemsize: int) -> int:
    """Rows of a tile are 1, 2, 4 or 8; smaller elements share a row of 4 bytes."""
    packed = _up(size, max(1, 4 // itemsize))
    return _up(packed, TPU_SUBLANES) if packed >= TPU_SUBLANES else 1 << (packed - 1).bit_length()


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
