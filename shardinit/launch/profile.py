"""JAX's device memory profile (``memory.prof`` of jax-smi), read without Go and without JAX."""

import functools
import gzip
import zlib
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from shardinit.errors import ArgumentError

# The parts of pprof's profile.proto that are needed. Texts are numbers of lines in string_table; a sample has one
# value per sample type ("allocations" in "count", "space" in "bytes").
PROFILE_PROTO = """
name: "shardinit/profile.proto" package: "shardinit.pprof" syntax: "proto3"
message_type { name: "ValueType"
  field { name: "unit" number: 2 type: TYPE_INT64 label: LABEL_OPTIONAL } }
message_type { name: "Label"
  field { name: "key" number: 1 type: TYPE_INT64 label: LABEL_OPTIONAL }
  field { name: "str" number: 2 type: TYPE_INT64 label: LABEL_OPTIONAL } }
message_type { name: "Sample"
  field { name: "value" number: 2 type: TYPE_INT64 label: LABEL_REPEATED }
  field { name: "label" number: 3 type: TYPE_MESSAGE type_name: ".shardinit.pprof.Label" label: LABEL_REPEATED } }
message_type { name: "Profile"
  field { name: "sample_type" number: 1 type: TYPE_MESSAGE type_name: ".shardinit.pprof.ValueType"
    label: LABEL_REPEATED }
  field { name: "sample" number: 2 type: TYPE_MESSAGE type_name: ".shardinit.pprof.Sample" label: LABEL_REPEATED }
  field { name: "string_table" number: 6 type: TYPE_STRING label: LABEL_REPEATED } }
"""


def device_bytes(path: Path) -> dict[str, int]:
    """Read what each device holds in buffers, from a device memory profile.

    Compiled programs are in the profile too, under no device; they are left out.

    Parameters
    ----------
    path
        File written by ``jax.profiler.save_device_memory_profile`` or jax-smi: gzipped pprof.

    Returns
    -------
    dict
        Bytes by the profile's name of the device, such as ``cpu:0``. A device that holds nothing is not in it.

    Raises
    ------
    ArgumentError
        If the file is cut short or is not such a profile.
    OSError
        If it cannot be opened.

    Examples
    --------
    >>> from pathlib import Path
    >>> from shardinit.launch.profile import device_bytes
    >>> device_bytes(Path("run/rank-0/memory.prof"))  # doctest: +SKIP
    {'cpu:0': 4096000, 'cpu:1': 4096000}
    """
    packed = path.read_bytes()
    try:
        return _sum_by_device(_profile_class().FromString(gzip.decompress(packed)))
    except (EOFError, gzip.BadGzipFile, zlib.error, DecodeError, IndexError, ValueError) as error:
        raise ArgumentError(
            f"cannot read {path} as a device memory profile ({len(packed)} bytes): {error}. "
            "Give a whole file that jax.profiler.save_device_memory_profile or jax-smi has written."
        ) from error


def _sum_by_device(profile: Any) -> dict[str, int]:
    texts = profile.string_table
    units = [texts[kind.unit] for kind in profile.sample_type]
    if "bytes" not in units:
        raise ValueError(f"none of its {len(units)} kinds of values is in bytes")
    place = units.index("bytes")
    held: dict[str, int] = {}
    for sample in profile.sample:
        labels = {texts[label.key]: texts[label.str] for label in sample.label}
        if labels.get("kind") == "buffer" and "device" in labels:
            held[labels["device"]] = held.get(labels["device"], 0) + sample.value[place]
    return held


@functools.cache
def _profile_class() -> Any:
    pool = DescriptorPool()
    pool.Add(text_format.Parse(PROFILE_PROTO, FileDescriptorProto()))
    return GetMessageClass(pool.FindMessageTypeByName("shardinit.pprof.Profile"))
