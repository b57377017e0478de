"""The devices that topologies are named after: memory, shapes that exist, what the fast network joins."""

import difflib
import math
from dataclasses import dataclass

from shardinit.errors import ArgumentError

GIB = 1 << 30

# What JAX's allocator takes of a GPU's memory unless told otherwise (XLA_PYTHON_CLIENT_MEM_FRACTION).
GPU_SHARE = 0.75


@dataclass(frozen=True, slots=True)
class Chip:
    """One kind of device.

    Attributes
    ----------
    platform
        ``cpu``, ``gpu`` or ``tpu``.
    kind
        What JAX calls it.
    memory
        Published bytes; None for CPU, whose devices share the host's memory.
    usable
        Bytes that a program can really have.
    node
        GPUs of one node, which NVLink joins.
    shapes
        Shapes of slices that exist, for TPU.
    """

    platform: str
    kind: str
    memory: int | None = None
    usable: int | None = None
    node: int = 8
    shapes: tuple[tuple[int, ...], ...] = ()


# Limits that libtpu 0.0.52 names when it runs out of HBM; shapes as Google Cloud documents them.
_FLAT = ((2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
_CUBES = tuple(
    (a, b, c) for a in range(4, 17, 4) for b in range(a, 21, 4) for c in range(b, 29, 4) if a * b * c <= 8960
)
_SOLID = ((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4), *_CUBES)

# GPU memory is the ``device_memory_size`` of the card descriptions in ``certify/cards``.
CHIPS = {
    "cpu": Chip("cpu", "cpu"),
    "a100": Chip("gpu", "NVIDIA A100-SXM4-80GB", 85100068864, int(85100068864 * GPU_SHARE)),
    "h100": Chip("gpu", "NVIDIA H100 80GB HBM3", 84942979072, int(84942979072 * GPU_SHARE)),
    "h200": Chip("gpu", "NVIDIA H200", 151397597184, int(151397597184 * GPU_SHARE)),
    "v5e": Chip("tpu", "TPU v5 lite", 16 * GIB, int(15.75 * GIB), shapes=_FLAT),
    "v5p": Chip("tpu", "TPU v5", 95 * GIB, int(95.73 * GIB), shapes=_SOLID),
    "v6e": Chip("tpu", "TPU v6 lite", 32 * GIB, int(31.24 * GIB), shapes=_FLAT),
}


@dataclass(frozen=True, slots=True)
class NamedShape:
    """A topology's name, read: chip, slices, and the shape of one slice (or processes x devices each)."""

    chip: Chip
    slices: int
    shape: tuple[int, ...]

    @property
    def devices(self) -> int:
        """Number of devices in all."""
        return self.slices * math.prod(self.shape)

    @property
    def fast(self) -> int:
        """Devices that the fast network joins: a slice, a node, all of a CPU."""
        return self.shape[-1] if self.chip.platform == "gpu" else math.prod(self.shape)


def read_name(name: str) -> NamedShape:
    """Read ``cpu:8``, ``h100:4x8`` (processes x local devices), ``v5p:8x16x16``, ``2xv5e:16x16`` (slices).

    Raises
    ------
    ArgumentError
        If there is no such device or shape; names the nearest that exist.
    """
    head, colon, tail = name.strip().lower().partition(":")
    count, x, chip_name = head.partition("x")
    slices = int(count) if x and _is_number(count) else 1
    chip_name = chip_name if x and _is_number(count) else head
    chip = CHIPS.get(chip_name)
    if chip is None:
        kind = {"gpu": "gpu", "cuda": "gpu", "tpu": "tpu"}.get(chip_name)
        alike = [n for n, c in CHIPS.items() if c.platform == kind]
        near = alike or difflib.get_close_matches(chip_name, CHIPS, n=2, cutoff=0.6) or list(CHIPS)
        raise ArgumentError(
            f"topology {name!r}: there is no device {chip_name!r}. "
            f"Use one of {', '.join(near)}, such as {_example(near[0])!r}."
        )
    parts = tail.split("x") if colon else ["1"]
    if not all(_is_number(p) and int(p) for p in parts) or slices < 1 or (not colon and chip.platform == "tpu"):
        raise ArgumentError(f"topology {name!r} has no shape that can be read. Write it like {_example(chip_name)!r}.")
    shape = tuple(map(int, parts))
    _check_shape(name, chip_name, chip, slices, shape)
    return NamedShape(chip, slices, shape)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _check_shape(name: str, chip_name: str, chip: Chip, slices: int, shape: tuple[int, ...]) -> None:
    if chip.platform != "tpu":
        if slices > 1:
            raise ArgumentError(f"topology {name!r}: only TPUs come in slices. Write it like {_example(chip_name)!r}.")
        if len(shape) > 2:
            raise ArgumentError(
                f"topology {name!r} has {len(shape)} sizes: it is processes x devices of each. "
                f"Write it like {_example(chip_name)!r}."
            )
        if chip.platform == "gpu" and shape[-1] > chip.node:
            nodes = -(-math.prod(shape) // chip.node)
            raise ArgumentError(
                f"topology {name!r}: a node has at most {chip.node} devices, not {shape[-1]}. "
                f"Write processes x devices of each, such as '{chip_name}:{nodes}x{chip.node}'."
            )
        return
    if tuple(sorted(shape)) in {tuple(sorted(s)) for s in chip.shapes} and len(shape) == len(chip.shapes[0]):
        return
    devices = math.prod(shape)
    by_distance = sorted(chip.shapes, key=lambda s: (abs(math.log(math.prod(s) / devices)), max(s)))
    many = f"{slices}x" if slices > 1 else ""
    near = [f"{many}{chip_name}:{'x'.join(map(str, s))}" for s in by_distance[:3]]
    largest = max(chip.shapes, key=math.prod)
    more = ""
    if devices > math.prod(largest):
        need = -(-devices // math.prod(largest)) * slices
        text = f"{chip_name}:{'x'.join(map(str, largest))}"
        near = [f"{many}{text}", f"{need}x{text}"]
        more = f"; a slice has at most {math.prod(largest)} chips, more are several slices"
    raise ArgumentError(f"topology {name!r}: no slice has that shape{more}. The nearest are {', '.join(near)}.")


def _example(chip_name: str) -> str:
    platform = CHIPS[chip_name].platform
    tail = {"cpu": "8", "gpu": "4x8"}.get(platform) or ("8x16x16" if chip_name == "v5p" else "4x8")
    return f"{chip_name}:{tail}"
