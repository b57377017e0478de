"""One run of an ensemble size, in a process of its own: ``ensemble_child.py WAY LANES DEVICES``.

It prints its record as JSON on the last line. It imports JAX late: the number of devices must be set first.
"""

import json
import math
import sys
from collections.abc import Callable
from typing import Any

W_SHAPE = (2048, 192)
V_SHAPE = (100,)


def start_devices(devices: int) -> None:
    """Emulate the devices: the first thing that a child does."""
    import shardinit

    shardinit.emulate_cpu(devices)


def make_module() -> Any:
    """A brainstate module with a large weight and a small vector."""
    import brainstate

    class Neurons(brainstate.nn.Module):
        def init_state(self):
            self.w = brainstate.ParamState(brainstate.random.normal(size=W_SHAPE) * 0.02)
            self.v = brainstate.HiddenState(brainstate.random.uniform(size=V_SHAPE))

    brainstate.random.seed(0)
    return Neurons()


def draw_lane(key: Any) -> dict[str, Any]:
    """The same two arrays for one lane, by hand."""
    import jax

    w_key, v_key = jax.random.split(key)
    return {"w": jax.random.normal(w_key, W_SHAPE) * 0.02, "v": jax.random.uniform(v_key, V_SHAPE)}


def lanes_sharding() -> Any:
    """The lanes over all devices, on a mesh of one axis."""
    import jax
    import numpy as np
    from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

    mesh = Mesh(np.array(jax.devices()), ("lanes",), axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec("lanes"))


def lane_keys(size: int) -> Any:
    """One key per lane."""
    import jax

    return jax.random.split(jax.random.key(0), size)


def held(w: Any, v: Any) -> dict[str, Any]:
    """What the devices hold of the two arrays, counted shard by shard."""
    import jax

    jax.block_until_ready((w, v))
    found = dict.fromkeys(jax.devices(), 0)
    for array in (w, v):
        for shard in array.addressable_shards:
            found[shard.device] += shard.data.nbytes
    if (w.shape, v.shape) != ((len(w), *W_SHAPE), (len(w), *V_SHAPE)):
        raise RuntimeError(f"made other shapes: {w.shape} and {v.shape}")
    return {
        "lanes": len(w),
        "largest_bytes": max(found.values()),
        "smallest_bytes": min(b for b in found.values() if b),
        "holding": sum(b > 0 for b in found.values()),
        "parts_of_w": len({str(s.index) for s in w.addressable_shards}),
        "parts_of_v": len({str(s.index) for s in v.addressable_shards}),
    }


def describe_plan(plan: Any) -> dict[str, Any]:
    """What shardinit planned for ``w`` and ``v``, from the plan alone."""
    axes = dict(plan.mesh_axes)
    specs = {state.spec.name: state.leaves[0].partition_spec for state in plan.states}
    parts = {name: math.prod(axes[axis] for axis in spec if axis) for name, spec in specs.items()}
    return {
        "mesh": " x ".join(f"{name}={size}" for name, size in axes.items()),
        "spec_of_w": _spec_text(specs["w"]),
        "spec_of_v": _spec_text(specs["v"]),
        "planned_parts_of_w": parts["w"],
        "planned_parts_of_v": parts["v"],
        "planned_bytes": plan.bytes_per_device,
        "reason": plan.reason,
    }


def _spec_text(spec: tuple[str | None, ...]) -> str:
    return f"P({', '.join(map(repr, spec))})"


def run_shardinit(size: int, devices: int) -> dict[str, Any]:
    """Plan for the devices by name, then really run, and compare the two to the byte."""
    import shardinit

    module = make_module()
    plan = shardinit.plan(shardinit.discover(module), shardinit.Topology("cpu", devices), axis_size=size)
    result = shardinit.shard_new_states(module, axis_size=size)
    found = {**describe_plan(plan), **held(module.w.value, module.v.value)}
    measured = result.receipt.measured_bytes
    found["as_planned"] = (
        result.plan.fingerprint == plan.fingerprint
        and len(measured) == devices - plan.idle_devices == found["holding"]
        and set(measured.values()) == {plan.bytes_per_device} == {found["largest_bytes"], found["smallest_bytes"]}
        and found["parts_of_w"] == found["planned_parts_of_w"]
        and found["parts_of_v"] == found["planned_parts_of_v"]
    )
    return found | {"receipt_bytes": sorted(set(measured.values()))}


def run_brainstate(size: int, devices: int) -> dict[str, Any]:
    """Brainstate's own initialization over devices."""
    import brainstate

    module = make_module()
    brainstate.transform.pmap2_new_states(module, {}, axis_size=size)
    return held(module.w.value, module.v.value)


def _nnx_class() -> Any:
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, key):
            drawn = draw_lane(key)
            self.w, self.v = nnx.Param(drawn["w"]), nnx.Variable(drawn["v"])

    return Net


def run_nnx(size: int, devices: int) -> dict[str, Any]:
    """A mapped constructor inside of ``nnx.jit``, with a sharding constraint on its state."""
    import jax
    from flax import nnx

    sharding, build = lanes_sharding(), nnx.vmap(_nnx_class())

    @nnx.jit
    def create(keys):
        net = build(keys)
        nnx.update(net, jax.lax.with_sharding_constraint(nnx.state(net), sharding))
        return net

    net = create(lane_keys(size))
    return held(net.w[...], net.v[...])


def run_nnx_out_shardings(size: int, devices: int) -> dict[str, Any]:
    """The same, with ``out_shardings`` instead of a constraint."""
    from flax import nnx

    net = nnx.jit(nnx.vmap(_nnx_class()), out_shardings=lanes_sharding())(lane_keys(size))
    return held(net.w[...], net.v[...])


def run_jax(size: int, devices: int) -> dict[str, Any]:
    """One program with the sharding of its outputs."""
    import jax

    made = jax.jit(jax.vmap(draw_lane), out_shardings=lanes_sharding())(lane_keys(size))
    return held(made["w"], made["v"])


def run_jax_constraint(size: int, devices: int) -> dict[str, Any]:
    """The same, with a sharding constraint instead of ``out_shardings``."""
    import jax

    sharding = lanes_sharding()
    made = jax.jit(lambda keys: jax.lax.with_sharding_constraint(jax.vmap(draw_lane)(keys), sharding))(lane_keys(size))
    return held(made["w"], made["v"])


Way = Callable[[int, int], dict[str, Any]]
WAYS: dict[str, Way] = {
    "shardinit": run_shardinit,
    "brainstate": run_brainstate,
    "nnx": run_nnx,
    "jax": run_jax,
}
OTHER_FORMS: dict[str, Way] = {"nnx_out_shardings": run_nnx_out_shardings, "jax_constraint": run_jax_constraint}


def child(way: str, size: int, devices: int) -> int:
    """Do one run and print its record as the last line."""
    start_devices(devices)
    try:
        found = (WAYS | OTHER_FORMS)[way](size, devices)
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {str(error).strip()}"}
    print(json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(child(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
