"""Factoring the devices into a mesh of `lanes` x `model`, or taking the caller's."""

import math
from collections.abc import Iterator
from dataclasses import replace

from shardinit.errors import ArgumentError, PlanError
from shardinit.plan.layout import platform_family
from shardinit.plan.placement import WORTH_SPLITTING_BYTES, MeshChoice
from shardinit.plan.text import mesh_text
from shardinit.plan.topology import Topology


def meshes(
    topology: Topology, axis_size: int, strategy: str, remainder: str, lanes_axis: str | None
) -> Iterator[list[MeshChoice]]:
    """Yield meshes by effort: each list only if nothing of the lists before fits the budget.

    First `model` stays inside of a node or slice and splits large leaves only; then it splits every leaf
    that divides; then it may cross the slow network; then it gets devices that the lanes could have: a single
    lane in parts needs fewer temporaries. Some meshes leave devices idle.
    """
    if topology.mesh_axes is not None or strategy in ("vmap", "shard_map", "pmap") or remainder in ("replicate", "pad"):
        fixed = _fixed(topology, axis_size, strategy, remainder, lanes_axis)
        yield [fixed]
        if fixed.model is not None:
            yield [_splitting_all(fixed)]
        return
    base = _base(topology, axis_size, strategy, made=True)
    most = math.gcd(axis_size, topology.devices)
    if remainder == "error" and axis_size % topology.devices:
        raise does_not_divide("remainder='error'", axis_size, topology.devices, "remainder='factor'")
    inside = _factored(topology, base, most, topology.fast_devices)
    yield [*inside, *_idling(topology, base)]
    if any(m.axes.get("model", 1) > 1 for m in inside):
        yield [_splitting_all(m) for m in inside]
    if topology.fast_devices < topology.devices:
        tried = [m.axes for m in inside]
        across = _factored(topology, base, most, topology.devices)
        yield [_splitting_all(m) for m in across if m.axes not in tried]
    for fewer in reversed(divisors(most)[:-1]):
        yield (rest := _factored(topology, base, fewer, topology.devices))
        yield [_splitting_all(m) for m in rest]


def _base(topology: Topology, axis_size: int, strategy: str, *, made: bool) -> MeshChoice:
    """Begin a choice with what all of them share, on no mesh yet."""
    return MeshChoice(
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


def _splitting_all(mesh: MeshChoice) -> MeshChoice:
    reason = f"{mesh.reason}; small states are split too, for the budget"
    return replace(mesh, worth_splitting=1, reason=reason)


def _factored(topology: Topology, base: MeshChoice, lanes: int, fast: int) -> list[MeshChoice]:
    """Give the lanes their devices, and `model` every factor of the rest that fits ``fast``.

    As many devices for the lanes as divide them leave the fewest bytes: one fewer for them is one more for
    `model`, and whatever `model` can split, more lanes split as well.
    """
    rest = topology.devices // lanes
    found = []
    for model in reversed(divisors(math.gcd(rest, fast))):
        copies = rest // model
        axes = {"lanes": lanes} | ({"copies": copies} if copies > 1 else {}) | ({"model": model} if rest > 1 else {})
        why = _why(topology, base.axis_size, lanes, copies, model)
        found.append(replace(base, axes=axes, lanes="lanes", model="model" if rest > 1 else None, reason=why))
    return found


def _idling(topology: Topology, base: MeshChoice) -> list[MeshChoice]:
    """Spread lanes that do not divide over as many devices as they do divide, and leave the others idle.

    Not over several nodes or slices, where a process would be left without any device of the mesh, nor
    on TPU, whose programs are for all devices of a slice.
    """
    devices, axis_size = topology.devices, base.axis_size
    lanes = max(d for d in divisors(axis_size) if d <= devices)
    if topology.fast is not None or topology.platform == "tpu" or lanes <= math.gcd(axis_size, devices):
        return []
    idle = devices - lanes
    reason = (
        f"{axis_size} lanes on {lanes} of {devices} devices: {axis_size // lanes} each; {idle} stay idle, since "
        f"{axis_size} lanes do not divide by {devices} and a device would hold more if all were used"
    )
    return [replace(base, axes={"lanes": lanes}, lanes="lanes", reason=reason)]


def _why(topology: Topology, axis_size: int, lanes: int, copies: int, model: int) -> str:
    devices = topology.devices
    if lanes == devices:
        return f"{axis_size} lanes on {devices} device{'s' if devices > 1 else ''}: {axis_size // lanes} each"
    if lanes == 1 and axis_size > 1:
        text = (
            f"{axis_size} lanes on {devices} devices: no common factor, so the lanes are not split; large states are "
            f"split over `model` where it divides them, the others copied. {sizes(axis_size, devices)} would split"
        )
    else:
        text = f"{axis_size} lanes on {devices} devices: {lanes} divide the lanes, the other factor {model} is `model`"
    if copies > 1:
        where = " (the slow network lies between)" if model == topology.fast_devices < devices else ""
        text += f"; {copies} groups of devices hold the same copies{where}"
    return text


def _fixed(topology: Topology, axis_size: int, strategy: str, remainder: str, wanted: str | None) -> MeshChoice:
    """Take the mesh that the caller, the strategy or the remainder leaves no choice of."""

    base = _base(topology, axis_size, strategy, made=False)

    def choice(axes, lanes, model, reason, padded=axis_size) -> MeshChoice:
        return replace(base, axes=axes, lanes=lanes, model=model, reason=reason, padded=padded)

    if topology.mesh_axes == ():
        return choice({}, None, None, "the default device: nothing to split")
    axes = {"lanes": topology.devices} if topology.mesh_axes is None else dict(topology.mesh_axes)
    if wanted is not None and wanted not in axes:
        raise ArgumentError(f"the mesh has no axis {wanted!r}, only {', '.join(map(repr, axes)) or 'none'}.")
    if strategy == "vmap":
        return choice(axes, None, None, f"as asked: every one of {topology.devices} devices computes all lanes")
    candidates = [wanted] if wanted else ["lanes"] if "lanes" in axes else sorted(axes, key=lambda a: axes[a] == 1)
    lanes = next((a for a in candidates if axis_size % axes[a] == 0), None)
    first = candidates[0]
    size = axes[first]
    if lanes is None and remainder == "pad":
        padded = -(-axis_size // size) * size
        text = f"{axis_size} lanes are padded to {padded} over {size} devices, {padded - axis_size} of them cut off"
        return choice(axes, first, None, text, padded)
    if lanes is None and (remainder == "error" or strategy in ("shard_map", "pmap")):
        by = "remainder='error'" if remainder == "error" else f"strategy={strategy!r}"
        raise does_not_divide(by, axis_size, size, "remainder='factor'" if remainder == "error" else "strategy='auto'")
    if lanes is None and remainder == "replicate":
        text = f"{axis_size} lanes do not divide by {size}: every one of {topology.devices} devices holds all of them"
        return choice(axes, None, None, text)
    own = {lanes, *(candidates if len(candidates) == 1 else ())}  # an axis that is for lanes splits nothing else
    rest = [a for a, size in axes.items() if a not in own and size > 1]
    model = None if strategy in ("shard_map", "pmap") else "model" if "model" in rest else rest[0] if rest else None
    if topology.mesh_axes is None:
        return choice(axes, lanes, model, f"{axis_size} lanes on {size} devices: {axis_size // size} each")
    text = f"mesh {mesh_text(tuple(axes.items()))}"
    if lanes is None:
        return choice(axes, None, model, f"{text}: {axis_size} lanes fit no mesh axis, so they are not split")
    return choice(axes, lanes, model, f"{text}: {axis_size // axes[lanes]} lanes per part of `{lanes}`")


def does_not_divide(by: str, axis_size: int, devices: int, instead: str) -> PlanError:
    """Name the numbers of lanes that would divide."""
    return PlanError(
        f"cannot split the lanes for {by}: axis_size={axis_size} is no multiple of devices={devices}. "
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
