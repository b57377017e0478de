"""The devices that topologies are named after: memory, shapes that exist, what the fast network joins."""

import difflib
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shardinit.errors import ArgumentError

GIB, MIB = 1 << 30, 1 << 20

# What JAX's allocator takes of a GPU's memory unless told otherwise (XLA_PYTHON_CLIENT_MEM_FRACTION).
GPU_SHARE = 0.75

MOST_OF_A_NODE = 72  # GPUs that one NVLink network joins, where a name does not tell


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
    cores
        Devices of one chip, for TPU.
    """

    platform: str
    kind: str
    memory: int | None = None
    usable: int | None = None
    node: int = 8
    shapes: tuple[tuple[int, ...], ...] = ()
    cores: int = 1

    def with_memory(self, memory: int) -> "Chip":
        """Take another size of memory for this kind of device."""
        return replace(self, memory=memory, usable=memory if self.platform == "cpu" else int(memory * GPU_SHARE))


# Limits that libtpu 0.0.52 names when it runs out of HBM; memory and shapes as Google Cloud documents them
# (docs.cloud.google.com/tpu/docs, the pages v4, v5e, v5p, v6e and tpu7x; slices of tpu7x as xpk generates them: up to
# 144 cubes of 64 chips). A device of tpu7x is a core, with half of its chip's 192 GiB.
# Of v4 it names the limit of a core; whether a device, which is a chip of two, has more is left aside.
_FLAT = ((2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
_CUBES = tuple(
    (a, b, c) for a in range(4, 17, 4) for b in range(a, 21, 4) for c in range(b, 29, 4) if a * b * c <= 8960
)
_LARGE_CUBES = tuple(
    (a, b, c) for a in range(4, 21, 4) for b in range(a, 49, 4) for c in range(b, 577, 4) if a * b * c <= 144 * 64
)
_SMALL = ((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4), *(s for s in _CUBES if max(s) <= 16))
_SOLID = ((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4), *_CUBES)
_LARGE = ((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4), *_LARGE_CUBES)


def _gpu(kind: str, memory: int, node: int = 8) -> Chip:
    return Chip("gpu", kind, memory, int(memory * GPU_SHARE), node)


# Bytes of a100, h100 and h200 are the ``device_memory_size`` of the card descriptions in ``certifier/cards``; MiB of
# the others are the total that nvidia-smi prints for them (ECC on), as public logs of 2024 to 2026 have it.
CHIPS = {
    "cpu": Chip("cpu", "cpu"),
    "t4": _gpu("Tesla T4", 15360 * MIB),
    "l4": _gpu("NVIDIA L4", 23034 * MIB),
    "l40s": _gpu("NVIDIA L40S", 46068 * MIB),
    "a10": _gpu("NVIDIA A10", 23028 * MIB),
    "a100": _gpu("NVIDIA A100-SXM4-80GB", 85100068864),
    "a100-40": _gpu("NVIDIA A100-SXM4-40GB", 40536 * MIB, 16),
    "h20": _gpu("NVIDIA H20", 97871 * MIB),
    "h100": _gpu("NVIDIA H100 80GB HBM3", 84942979072),
    "h100-pcie": _gpu("NVIDIA H100 PCIe", 81559 * MIB),
    "h100-nvl": _gpu("NVIDIA H100 NVL", 95830 * MIB),
    "h200": _gpu("NVIDIA H200", 151397597184),
    "h200-nvl": _gpu("NVIDIA H200 NVL", 143771 * MIB),
    "gh200": _gpu("NVIDIA GH200 480GB", 97871 * MIB, 4),
    "b200": _gpu("NVIDIA B200", 183359 * MIB),
    "gb200": _gpu("NVIDIA GB200", 189471 * MIB, 4),
    "b300": _gpu("NVIDIA B300 SXM6 AC", 275040 * MIB),
    "gb300": _gpu("NVIDIA GB300", 284208 * MIB, 4),
    "rtx4090": _gpu("NVIDIA GeForce RTX 4090", 24564 * MIB),
    "rtx5090": _gpu("NVIDIA GeForce RTX 5090", 32607 * MIB),
    "rtxpro6000": _gpu("NVIDIA RTX PRO 6000 Blackwell Server Edition", 97887 * MIB),
    "v4": Chip("tpu", "TPU v4", 32 * GIB, int(15.25 * GIB), shapes=_SMALL),
    "v5e": Chip("tpu", "TPU v5 lite", 16 * GIB, int(15.75 * GIB), shapes=_FLAT),
    "v5p": Chip("tpu", "TPU v5", 95 * GIB, int(95.73 * GIB), shapes=_SOLID),
    "v6e": Chip("tpu", "TPU v6 lite", 32 * GIB, int(31.24 * GIB), shapes=_FLAT),
    "tpu7x": Chip("tpu", "TPU7x", 96 * GIB, int(94.74 * GIB), shapes=_LARGE, cores=2),
}
ALIASES = {"a100-80": "a100", "h100-sxm": "h100", "ironwood": "tpu7x"}


@dataclass(frozen=True, slots=True)
class NamedShape:
    """A topology's name, read: chip, slices, and the shape of one slice (or processes x devices each)."""

    chip_name: str
    chip: Chip
    slices: int
    shape: tuple[int, ...]

    @property
    def devices(self) -> int:
        """Number of devices in all."""
        return self.slices * math.prod(self.shape) * self.chip.cores

    @property
    def fast(self) -> int:
        """Devices that the fast network joins: a slice, a node, all of a CPU."""
        return self.shape[-1] if self.chip.platform == "gpu" else math.prod(self.shape) * self.chip.cores


def read_name(name: str, memory: int | None = None) -> NamedShape:
    """Read ``cpu:8``, ``h100:4x8`` (processes x local devices), ``v5p:8x16x16``, ``2xv5e:16x16`` (slices).

    ``gpu:2x4@48GiB`` and ``cpu:8@2GiB`` say the memory of a device that has no name here; so does ``memory``.

    Raises
    ------
    ArgumentError
        If there is no such device or shape; names the nearest that exist.
    """
    named, at, size = name.strip().lower().partition("@")
    head, colon, tail = named.partition(":")
    count, x, chip_name = head.partition("x")
    slices = int(count) if x and _is_number(count) else 1
    chip_name = chip_name if x and _is_number(count) else head
    if at:
        memory = _read_memory(name, size)
    chip_name, chip = _chip(name, chip_name, tail, memory)
    parts = tail.split("x") if colon else ["1"]
    if not all(_is_number(p) and int(p) for p in parts) or slices < 1 or (not colon and chip.platform == "tpu"):
        raise ArgumentError(f"topology {name!r} has no shape that can be read. Write it like {_example(chip_name)!r}.")
    shape = tuple(map(int, parts))
    _check_shape(name, chip_name, chip, slices, shape)
    return NamedShape(chip_name, chip, slices, shape)


def _chip(name: str, chip_name: str, tail: str, memory: int | None) -> tuple[str, Chip]:
    """Find a device by its name, with the memory that was said of it."""
    plain = {key.replace("-", ""): key for key in (*CHIPS, *ALIASES)}
    known = plain.get(re.sub("[-_ ]", "", chip_name))
    if known is not None:
        known = ALIASES.get(known, known)
        chip = CHIPS[known]
        if memory is None:
            return known, chip
        if chip.platform != "tpu":
            return known, chip.with_memory(memory)
        raise ArgumentError(f"topology {name!r}: a TPU's memory is known. Write it like {_example(known)!r}.")
    kind = {"gpu": "gpu", "cuda": "gpu", "tpu": "tpu"}.get(chip_name)
    if kind == "gpu" and memory is not None:
        return "gpu", Chip("gpu", "", node=MOST_OF_A_NODE).with_memory(memory)
    alike = [n for n, c in CHIPS.items() if c.platform == kind]
    near = alike or difflib.get_close_matches(chip_name, CHIPS, n=2, cutoff=0.6) or list(CHIPS)
    shape = tail if all(_is_number(part) and int(part) for part in tail.split("x")) else "2x4"
    other = f"; for another GPU say its memory, such as 'gpu:{shape}@48GiB', or give its card file"
    other = "" if kind == "tpu" else other
    raise ArgumentError(
        f"topology {name!r}: there is no device {chip_name!r}. "
        f"Use one of {', '.join(near)}, such as {_example(near[0])!r}{other}."
    )


def _read_memory(name: str, text: str) -> int:
    from pydantic import ByteSize, TypeAdapter, ValidationError

    try:
        size = int(TypeAdapter(ByteSize).validate_python(text.strip()))
    except ValidationError:
        size = 0
    if size < 1:
        raise ArgumentError(
            f"topology {name!r}: {text!r} after the @ is not the memory of a device. Write it like 'gpu:2x4@48GiB'."
        )
    return size


def card_memory(card: Any) -> int:
    """Read the memory of a card's description (a ``GpuTargetConfigProto`` in text form)."""
    try:
        text = Path(card).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ArgumentError(f"cannot read the card {str(card)!r}: {error.strerror}. Pass the path of a file.") from None
    found = re.search(r"device_memory_size\s*:\s*(\d+)", text)
    if found is None or not int(found[1]):
        raise ArgumentError(
            f"the card {str(card)!r} has no device_memory_size. Pass a GpuTargetConfigProto in text form, or "
            "write the memory into the topology, such as 'gpu:2x4@48GiB'."
        )
    return int(found[1])


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
    platform = CHIPS[chip_name].platform if chip_name in CHIPS else "gpu"
    tail = {"cpu": "8", "gpu": "4x8"}.get(platform) or ("4x8" if CHIPS[chip_name].shapes == _FLAT else "4x4x8")
    return f"{chip_name}:{tail}"
