"""Compile exported pieces for devices that need not be there. Run as a script, in a process of its own.

A compiler can abort its process, hold locks, and write to file descriptor 2, so none of this happens in the
caller's. It imports JAX alone. ``child.py JOB`` reads a JSON job and writes one JSON line per piece to its
``results``, as soon as the piece is compiled.
"""

import json
import os
import re
import sys
import threading
import time
from typing import Any

COLLECTIVE = re.compile(
    r"\b(all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter|collective-broadcast)(?:-start)?\("
)


def main(job_file: str) -> None:
    """Compile every piece of a job."""
    with open(job_file) as file:
        job = json.load(file)
    threading.Thread(target=_leave_with, args=(job["parent"],), daemon=True).start()
    devices = _devices(job)
    with open(job["results"], "a") as results:
        results.write(json.dumps({"number": None}) + "\n")  # ready: the time of the first piece begins
        results.flush()
        for piece in job["pieces"]:
            started = time.perf_counter()
            try:
                found = _compile(piece, job, devices)
            except Exception as error:  # whatever a compiler raises is the result
                found = {"error": f"{type(error).__name__}: {error}"[:2000]}
            found |= {"number": piece["number"], "seconds": time.perf_counter() - started}
            results.write(json.dumps(found) + "\n")
            results.flush()


def _leave_with(parent: int) -> None:
    """End when the caller is gone, however it went."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _devices(job: dict[str, Any]) -> list[Any]:
    import jax
    from jax.experimental import topologies

    if job["platform"] == "cpu":
        return jax.devices()
    description = topologies.get_topology_desc(**job["topology"])
    return sorted(description.devices, key=lambda d: (getattr(d, "slice_index", 0) or 0, d.process_index))


def _compile(piece: dict[str, Any], job: dict[str, Any], devices: list[Any]) -> dict[str, Any]:
    import jax
    import numpy as np
    from jax import export
    from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

    with open(piece["file"], "rb") as file:
        exported = export.deserialize(bytearray(file.read()))
    names, shape = [n for n, _ in job["mesh"]], [s for _, s in job["mesh"]]
    if piece["on_mesh"]:
        count = int(np.prod(shape))
        mesh = Mesh(np.array(devices[:count]).reshape(shape), names, axis_types=(AxisType.Auto,) * len(shape))
        shardings: list[Any] = [NamedSharding(mesh, PartitionSpec(*spec)) for spec in piece["specs"]]
    else:
        shardings = [SingleDeviceSharding(devices[0])] * len(piece["specs"])
    arguments = [
        jax.ShapeDtypeStruct(aval.shape, aval.dtype, sharding=sharding)
        for aval, sharding in zip(exported.in_avals, shardings, strict=True)
    ]
    arguments, _ = jax.tree.unflatten(exported.in_tree, arguments)
    compiled = jax.jit(exported.call).lower(*arguments).compile()
    memory: Any = compiled.memory_analysis()
    outputs, temporaries = memory.output_size_in_bytes, memory.temp_size_in_bytes
    taken = memory.argument_size_in_bytes
    # On CPU this figure leaves the temporaries out; on TPU it has what they leave out.
    peak = getattr(memory, "peak_memory_in_bytes", 0)
    return {
        "output_bytes": outputs,
        "temporary_bytes": temporaries,
        "peak_bytes": max(peak - taken, outputs + temporaries),
        "collectives": sorted(set(COLLECTIVE.findall(compiled.as_text() or ""))),
    }


if __name__ == "__main__":
    main(sys.argv[1])
