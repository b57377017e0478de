"""Plans to draw pages of, and a certificate."""

from types import SimpleNamespace

from shardinit import LeafSpec, StateSpec, Topology, plan

HOSTILE = (
    "a",
    "</script><script>document.title='broken'</script>",
    "\"'<!--<img src=x onerror=alert(1)>",
    "\u202e\ud800&",
)


def state(path, *shape, state_class="ShortTermState", out_axis=0):
    return StateSpec(tuple(path), state_class, (LeafSpec(shape, "float32", 4),), out_axis)


FEW = [state(["v"], 64, 4096), *(state(["layers", str(i), "w"], 30, 30) for i in range(5)), state(HOSTILE, 10)]
PADDABLE = [state(["v"], 64, 4096), state(["w"], 16), state(["layers", "0", "w"], 8)]
ODD = [state([name], 7, 7) for name in "uvw"]


def plan_of(topology, axis_size, states=FEW, **options):
    topology = Topology.named(topology) if isinstance(topology, str) else topology
    return plan(states, topology, axis_size=axis_size, **options)


def certificate(passed=True):
    piece = SimpleNamespace(
        state="layers/0/<b>w</b>",
        count=1,
        error="",
        strategy="shard_map",
        seconds=1.25,
        output_bytes=1024,
        temporary_bytes=2048,
        peak_bytes=3072,
        predicted_peak_bytes=None,
        collectives=("all-gather",),
    )
    return SimpleNamespace(
        passed=passed,
        topology="h100:4x8",
        compiler="XLA",
        failures=(),
        pieces=(piece,) * 3,
        peak_bytes=3072,
        predicted_peak_bytes=4096,
        notes=("a note with <i>markup</i>",),
    )


PLANS = {
    "cpu": lambda: plan_of("cpu:8", 12),
    "gpu": lambda: plan_of("h100:4x8", 64, memory_budget="1GiB"),
    "pod": lambda: plan_of("v5p:8x16x16", 64),
    "padded": lambda: plan_of("cpu:8", 13, states=PADDABLE, remainder="pad"),
    "idle devices": lambda: plan_of("cpu:8", 7, states=ODD),
    "one device": lambda: plan_of(Topology("cpu", 1, ()), 3),
}
