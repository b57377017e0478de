"""Factoring the devices into a mesh of `lanes` x `model`, or taking the caller's."""

import bisect
import math
from collections.abc import Iterator
from dataclasses import replace

from shardinit.errors import ArgumentError, PlanError
from shardinit.planner.device_bytes import platform_family
from shardinit.planner.placement import WORTH_SPLITTING_BYTES, CandidateMesh
from shardinit.spec.options import AskedStrategy, PlanOptions
from shardinit.spec.topology import Topology
from shardinit.wording import counted, mesh_text

NEAR = 4  # a better number of lanes or devices is named within a quarter


def meshes(topology: Topology, options: PlanOptions) -> Iterator[list[CandidateMesh]]:
    """Yield meshes by effort: each list only if nothing of the lists before fits the budget.

    First `model` stays inside of a node or slice and splits large leaves only; then it splits every leaf
    that divides; then it may cross the slow network; then it gets devices that the lanes could have: a single
    lane in parts needs fewer temporaries. Devices that would hold nothing but copies stay idle where they can.
    """
    axis_size, strategy, remainder = options.axis_size, options.strategy, options.remainder
    if topology.mesh_axes is not None or strategy in ("vmap", "shard_map", "pmap") or remainder in ("replicate", "pad"):
        fixed = _fixed(topology, options)
        yield [fixed]
        if fixed.model is not None:
            yield [_splitting_all(fixed)]
        return
    base = _base(topology, axis_size, strategy, made=True)
    if remainder == "error" and axis_size % topology.devices:
        raise does_not_divide("remainder='error'", axis_size, topology.devices, "remainder='factor'")
    yield (inside := _best_of_each_model(topology, base))
    if split := [m for m in inside if m.model is not None]:
        yield [_splitting_all(m) for m in split]
    most = math.gcd(axis_size, topology.devices)
    if topology.fast_devices < topology.devices:
        tried = [m.axes for m in inside]
        across = _all_devices(topology, base, most)
        yield [_splitting_all(m) for m in across if m.axes not in tried]
    yield (others := _best_of_each_model(topology, base, every=True))
    yield [_splitting_all(m) for m in others]
    for fewer in reversed(divisors(most)):
        yield (rest := _all_devices(topology, base, fewer))
        yield [_splitting_all(m) for m in rest]


def _base(topology: Topology, axis_size: int, strategy: AskedStrategy, *, made: bool) -> CandidateMesh:
    """Begin a choice with what all of them share, on no mesh yet."""
    return CandidateMesh(
        axes={},
        lanes=None,
        model=None,
        axis_size=axis_size,
        padded=axis_size,
        strategy=strategy,
        platform=platform_family(topology.platform),
        worth_splitting=WORTH_SPLITTING_BYTES,
        reason="",
        made=made,
    )


def _splitting_all(mesh: CandidateMesh) -> CandidateMesh:
    reason = f"{mesh.reason}; small states are split too, for the budget"
    return replace(mesh, worth_splitting=1, reason=reason)


def _best_of_each_model(topology: Topology, base: CandidateMesh, *, every: bool = False) -> list[CandidateMesh]:
    """Choose the lanes' devices for every size of `model` that divides a node or slice.

    With `model` given, as many devices for the lanes as possible leave the fewest lanes and bytes on each. A mesh
    is left out if another with as many devices has a `model` that divides its own: whatever the larger one splits,
    the smaller one splits too, and more lanes split the rest as well. It can still need fewer temporaries
    (``every``).
    """
    sizes_of_lanes = divisors(base.axis_size)
    most = _lanes(topology, sizes_of_lanes, 1)
    found: list[tuple[int, int]] = []
    for model in divisors(topology.fast_devices):
        lanes = _lanes(topology, sizes_of_lanes, model)
        if every or not any(model % m == 0 and n * m >= lanes * model for n, m in found):
            found.append((lanes, model))
    return [_choice(topology, base, lanes, model, most) for lanes, model in found]


def _lanes(topology: Topology, sizes_of_lanes: list[int], model: int) -> int:
    """Find the most groups of `model` devices that the lanes divide by; the other groups stay idle.

    Where they cannot, the lanes must divide the groups, so that the others hold copies: on TPU, whose programs are
    for all devices of a slice, and where a node would be left without any device of the mesh.
    """
    groups = topology.devices // model
    most = sizes_of_lanes[bisect.bisect_right(sizes_of_lanes, groups) - 1]
    if topology.platform != "tpu" and most >= topology.devices // topology.fast_devices:
        return most
    return math.gcd(sizes_of_lanes[-1], groups)


def _all_devices(topology: Topology, base: CandidateMesh, lanes: int) -> list[CandidateMesh]:
    """Give `model` every factor of what so many devices for the lanes leave; across nodes and slices too."""
    models = reversed(divisors(topology.devices // lanes))
    return [_choice(topology, base, lanes, model, lanes) for model in models]


def _choice(topology: Topology, base: CandidateMesh, lanes: int, model: int, most: int) -> CandidateMesh:
    """Make a mesh of lanes x model, with copies on the rest if it is a factor of it that cannot be idle.

    A leaf is large by what the ``most`` devices for the lanes would leave on each, whatever this mesh does.
    """
    groups = topology.devices // model
    idles = topology.platform != "tpu" and lanes >= topology.devices // topology.fast_devices
    copies = 1 if idles or groups % lanes else groups // lanes
    axes = {"lanes": lanes} | ({"copies": copies} if copies > 1 else {}) | ({"model": model} if model > 1 else {})
    return replace(
        base,
        axes=axes,
        lanes="lanes",
        model="model" if model > 1 else None,
        worth_splitting=-(-WORTH_SPLITTING_BYTES * most // lanes),
        reason=_why(topology, base.axis_size, lanes, copies, model),
    )


def _why(topology: Topology, axis_size: int, lanes: int, copies: int, model: int) -> str:
    devices, used = topology.devices, lanes * copies * model
    each = axis_size // lanes
    if lanes == devices:
        return f"{counted(axis_size, 'lane')} on {counted(devices, 'device')}: {each} each"
    if model == 1 and used < devices:
        text = (
            f"{counted(axis_size, 'lane')} on {lanes} of {counted(devices, 'device')}: {each} each; {devices - used} "
            "stay idle, they would only hold copies"
        )
    elif lanes == 1 and axis_size > 1:
        text = (
            f"{axis_size} lanes on {devices} devices: the lanes are not split; large states are split over "
            "`model` where it divides them, the others copied"
        )
    else:
        text = f"{counted(axis_size, 'lane')} on {counted(devices, 'device')}: {lanes} divide the lanes"
        text += f", the other factor {model} is `model`" if model > 1 else ""
    if copies > 1:
        where = " (the slow network lies between)" if model == topology.fast_devices < devices else ""
        text += f"; {copies} groups of devices hold the same copies{where}"
    if model > 1 and used < devices:
        text += f"; {devices - used} stay idle"
    return text + (_better(topology, axis_size) if model == 1 or lanes == 1 else "")


def _better(topology: Topology, axis_size: int) -> str:
    """Name numbers of lanes or devices nearby that would use every device."""
    devices = topology.devices
    multiples = {axis_size // devices * devices, -(-axis_size // devices) * devices}
    lanes = [n for n in sorted(multiples) if n and NEAR * abs(n - axis_size) <= axis_size]
    ways = [f"axis_size={n} ({n // devices} each)" for n in lanes if n != axis_size]
    step = 1 if topology.fast is None else topology.fast
    more = [d for d in range(devices + step, devices + devices // NEAR + 1, step) if axis_size % d == 0]
    if more and topology.platform != "tpu":
        ways.append(f"{more[0]} devices ({axis_size // more[0]} each)")
    return f". {' or '.join(ways)} would use all devices" if ways and axis_size % devices else ""


def _fixed(topology: Topology, options: PlanOptions) -> CandidateMesh:
    """Take the mesh that the caller, the strategy or the remainder leaves no choice of."""
    axis_size, strategy, remainder, wanted = options.axis_size, options.strategy, options.remainder, options.lanes_axis
    base = _base(topology, axis_size, strategy, made=False)

    def choice(
        axes: dict[str, int], lanes: str | None, model: str | None, reason: str, padded: int = axis_size
    ) -> CandidateMesh:
        return replace(base, axes=axes, lanes=lanes, model=model, reason=reason, padded=padded)

    if topology.mesh_axes == ():
        return choice({}, None, None, "the default device: nothing to split")
    axes = {"lanes": topology.devices} if topology.mesh_axes is None else dict(topology.mesh_axes)
    if wanted is not None and wanted not in axes:
        raise ArgumentError(f"the mesh has no axis {wanted!r}, only {', '.join(map(repr, axes)) or 'none'}.")
    if strategy == "vmap":
        return choice(axes, None, None, f"as asked: {_every(topology.devices)} computes all lanes")
    candidates = [wanted] if wanted else ["lanes"] if "lanes" in axes else sorted(axes, key=lambda a: axes[a] == 1)
    lanes = next((a for a in candidates if axis_size % axes[a] == 0), None)
    first = candidates[0]
    size = axes[first]
    if lanes is None and remainder == "pad":
        padded = -(-axis_size // size) * size
        are = "is" if axis_size == 1 else "are"
        text = f"{counted(axis_size, 'lane')} {are} padded to {padded} over {counted(size, 'device')}"
        text += f", {padded - axis_size} of them cut off"
        return choice(axes, first, None, text, padded)
    if lanes is None and (remainder == "error" or strategy in ("shard_map", "pmap")):
        by = "remainder='error'" if remainder == "error" else f"strategy={strategy!r}"
        raise does_not_divide(by, axis_size, size, "remainder='factor'" if remainder == "error" else "strategy='auto'")
    if lanes is None and remainder == "replicate":
        text = f"{size} does not divide {counted(axis_size, 'lane')}: {_every(topology.devices)} holds all of them"
        return choice(axes, None, None, text)
    own = {lanes, *(candidates if len(candidates) == 1 else ())}  # an axis that is for lanes splits nothing else
    rest = [a for a, size in axes.items() if a not in own and size > 1]
    model = None if strategy in ("shard_map", "pmap") else "model" if "model" in rest else rest[0] if rest else None
    if topology.mesh_axes is None:
        return choice(
            axes, lanes, model, f"{counted(axis_size, 'lane')} on {counted(size, 'device')}: {axis_size // size} each"
        )
    text = f"mesh {mesh_text(tuple(axes.items()))}"
    if lanes is None:
        return choice(
            axes, None, model, f"{text}: no mesh axis divides the {counted(axis_size, 'lane')}, so nothing splits them"
        )
    return choice(axes, lanes, model, f"{text}: {counted(axis_size // axes[lanes], 'lane')} per part of `{lanes}`")


def _every(devices: int) -> str:
    return "the one device" if devices == 1 else f"every one of {devices} devices"


def does_not_divide(by: str, axis_size: int, devices: int, instead: str) -> PlanError:
    """Name the numbers of lanes that would divide."""
    return PlanError(
        f"cannot split the lanes for {by}: axis_size={axis_size} is not a multiple of devices={devices}. "
        f"Use {sizes(axis_size, devices)}, or {instead}."
    )


def sizes(axis_size: int, devices: int) -> str:
    """Name the nearest numbers of lanes that the devices divide."""
    below, above = axis_size // devices * devices, -(-axis_size // devices) * devices
    return " or ".join(f"axis_size={size}" for size in (below, above) if size)


def divisors(number: int) -> list[int]:
    """Every divisor, ascending."""
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return sorted({*small, *(number // d for d in small)})
