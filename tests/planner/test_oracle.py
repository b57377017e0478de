"""The planner against brute force: no factorization, placement, order or slicing is better than what it chose."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardinit import LeafSpec, MemoryBudgetError, StateSpec, Topology, plan
from shardinit.planner.memory import Load, schedule
from shardinit.planner.memory_figures import PIECE_BYTES
from shardinit.planner.placement import CandidateMesh
from tests.planner.oracle import Cost, best_mesh, check, first_choice, fittings, least_peak, peak_of

ITEM = 4
COUNTER = PIECE_BYTES["cpu"]
MODEST = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def leaves(draw):
    """One lane of 0 to 3 axes; some are a few bytes, some some MiB."""
    shape = draw(st.lists(st.integers(0, 12), max_size=3))
    if shape:
        shape[draw(st.integers(0, len(shape) - 1))] *= draw(st.sampled_from([1, 1, 512, 4096, 65536]))
    return LeafSpec(tuple(shape), "float32", ITEM)


@st.composite
def states(draw, most_leaves=2):
    made = tuple(draw(st.lists(leaves(), min_size=1, max_size=most_leaves)))
    rank = min(len(leaf.shape) for leaf in made)
    return StateSpec(("s",), "ParamState", made, draw(st.integers(0, rank)))


@st.composite
def topologies(draw):
    """Devices, some of them in nodes that a slow network joins."""
    devices = draw(st.integers(1, 16))
    fast = draw(st.sampled_from([None, *[d for d in range(1, devices + 1) if devices % d == 0]]))
    return Topology(draw(st.sampled_from(["cpu", "gpu"])), devices, None, fast)


def work(most_leaves=2):
    return st.tuples(st.lists(states(most_leaves), min_size=1, max_size=4), topologies(), st.integers(1, 40))


def fits(specs, topology, axis_size, budget):
    try:
        return plan(specs, topology, axis_size=axis_size, memory_budget=budget)
    except MemoryBudgetError:
        return None


@settings(MODEST, max_examples=1200)
@given(work())
def test_without_a_budget_no_mesh_is_better_and_no_order_has_a_lower_peak(case):
    specs, topology, axis_size = case
    check(plan(specs, topology, axis_size=axis_size), *case)


@settings(MODEST, max_examples=300)
@given(work(), st.data())
def test_states_that_all_lanes_share_count_once(case, data):
    specs, topology, axis_size = case
    shared = [replace(leaf, by_lane=False) for leaf in data.draw(st.lists(leaves(), min_size=1, max_size=2))]
    specs = [*specs, StateSpec(("shared",), "NonBatchState", tuple(shared), None)]
    planned = plan(specs, topology, axis_size=axis_size)
    assert planned.bytes_per_device == best_mesh(specs, topology, axis_size)[0]
    assert planned.states[-1].bytes_per_device == sum(leaf.lane_bytes for leaf in shared)


def test_the_peak_of_a_shared_state_is_that_of_one_draw():
    leaf = LeafSpec((1000,), "float32", ITEM, by_lane=False)
    planned = plan([StateSpec(("s",), "NonBatchState", (leaf,), None)], "cpu:8", axis_size=64)
    assert planned.peak_bytes == 4000 + 3 * 4000 + COUNTER
    assert planned.steps[0].slices == 1


def test_what_stays_on_the_host_takes_no_device_memory():
    leaf = LeafSpec((1000,), "float32", ITEM, by_lane=False, on_host=True)
    planned = plan([StateSpec(("s",), "NonBatchState", (leaf,), None)], "cpu:8", axis_size=64)
    assert planned.bytes_per_device == 0
    assert planned.peak_bytes <= COUNTER


@settings(MODEST, max_examples=700)
@given(work(most_leaves=1), st.integers(-3, 3), st.integers(0, 1000))
def test_within_a_budget_the_documented_choice_is_made(case, offset, where):
    """The documented choices: most devices for lanes, large leaves split, then all, then over the slow network."""
    specs, topology, axis_size = case
    every = fittings(*case, everything=False)
    lowest = min(f.peak for f in every)
    highest = max(f.peak for f in every)
    budget = max(1, lowest + (offset if where % 2 else (highest - lowest) * where // 1000))
    found = fits(specs, topology, axis_size, budget)
    if budget < lowest:  # what fits all the same is the next test's
        return
    assert found is not None, f"budget {budget}, lowest peak {lowest}"
    check(found, *case)
    best = first_choice(every, budget, axis_size)
    assert found.bytes_per_device == best.bytes_per_device, f"{found.bytes_per_device} bytes, not those of {best}"


@settings(MODEST, max_examples=500)
@given(work(), st.integers(-1, 0))
def test_a_budget_is_refused_only_if_no_choice_at_all_fits_it(case, offset):
    """Fewer devices for the lanes too; and every leaf that divides may be left whole, so that it runs in slices."""
    specs, topology, axis_size = case
    lowest = min(f.peak for f in fittings(*case, everything=True))
    budget = max(1, lowest + offset)
    found = fits(specs, topology, axis_size, budget)
    assert (found is not None) == (budget >= lowest), f"budget {budget}, lowest peak {lowest}"


def test_fewer_devices_for_the_lanes_are_tried_where_one_draw_needs_too_much():
    """On GPU a draw needs twice a lane, however many lanes: split in eight, a quarter of a lane."""
    w = StateSpec(("w",), "ParamState", (LeafSpec((1 << 16, 1 << 16), "float32", ITEM),))
    assert min(f.peak for f in fittings([w], Topology("gpu", 8), 8, everything=True)) < 25 << 30
    assert plan([w], Topology("gpu", 8), axis_size=8, memory_budget="40GiB").peak_bytes <= 40 << 30


def test_one_large_state_in_slices_beside_small_ones_that_are_split():
    """Unsplit, ``w`` runs in slices; split, the others are half as large: together they fit, not all one way."""
    w = StateSpec(("w",), "ParamState", (LeafSpec((10 << 20,), "uint8", 1),))
    v = StateSpec(("v",), "ParamState", (LeafSpec((1 << 20,), "uint8", 1),))
    of_v = 125 << 20
    # w whole in 125 slices (4/125 of it meanwhile), then 8 v, each split: the last needs 3/2 of a v meanwhile
    budget = 10 * of_v + 8 * of_v // 2 + 3 * of_v // 2 + COUNTER
    assert plan([w, *[v] * 8], Topology("cpu", 2), axis_size=125, memory_budget=budget).peak_bytes <= budget


@settings(MODEST, max_examples=400)
@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.lists(st.integers(0, 60), min_size=1, max_size=4)), min_size=1, max_size=5
    ),
    st.integers(0, 20),
    st.integers(-1, 400),
)
def test_no_order_or_slicing_of_any_pieces_is_better(pieces, keys, budget):
    """Pieces of any cost, not only of one draw."""
    kibi = 1 << 10
    loads = [
        Load(i, stays * kibi, (), (), tuple(range(1, len(needs) + 1)), tuple(n * kibi for n in needs), i, False)
        for i, (stays, needs) in enumerate(pieces)
    ]
    names = [str(i) for i in range(len(pieces))]

    def lowest(choose):
        costs = [(stays * kibi, choose(needs) * kibi) for stays, needs in pieces]
        return max(
            min(peak_of([(keys * kibi, 0), *order], "cpu") for order in itertools.permutations(costs)),
            keys * kibi + COUNTER if keys else 0,
        )

    free = schedule(loads, keys * kibi, names, mesh_of_one(), None)
    assert max(s.peak for s in free) == lowest(lambda needs: needs[0])
    limit = budget * kibi
    tight = schedule(loads, keys * kibi, names, mesh_of_one(), limit)
    assert (max(s.peak for s in tight) <= limit) == (lowest(min) <= limit)


@settings(MODEST, max_examples=400)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 60)), min_size=2, max_size=5), st.integers(1, 4))
def test_no_order_is_better_where_some_pieces_wait_for_each_other(pieces, linked):
    """The first pieces form a chain: each hands a KiB on to the next, released there. Others may go in between."""
    kibi = 1 << 10
    chain = min(linked + 1, len(pieces))
    loads = [
        Load(
            i,
            stays * kibi,
            ((i, kibi),) if i < chain - 1 else (),
            (i - 1,) if 0 < i < chain else (),
            (1,),
            (needs * kibi,),
            i,
            i < chain,
        )
        for i, (stays, needs) in enumerate(pieces)
    ]

    def peak(order):
        held, most = 0, 0
        for i in order:
            held += loads[i].kept + sum(size for _, size in loads[i].handed_on)
            most = max(most, held + loads[i].temporaries[0] + COUNTER)
            held -= kibi * len(loads[i].reads)
        return most

    orders = [
        o for o in itertools.permutations(range(len(pieces))) if [i for i in o if i < chain] == list(range(chain))
    ]
    steps = schedule(loads, 0, [str(i) for i in range(len(pieces))], mesh_of_one(), None)
    assert [i for s in steps for i in s.pieces if i < chain] == list(range(chain))
    assert max(s.peak for s in steps) == min(map(peak, orders))


def mesh_of_one():
    return CandidateMesh({"lanes": 1}, "lanes", None, 1, 1, "auto", "cpu", 1 << 20, "", made=True)


# The oracle itself: it must see a plan that is worse, or that says what is not so.

LARGE = [StateSpec(("w",), "ParamState", (LeafSpec((12, 1 << 18), "float32", ITEM),))]
SEVERAL = [
    StateSpec((str(n),), "ParamState", (LeafSpec((n << 10,), "float32", ITEM), LeafSpec((k,), "float32", ITEM)))
    for n, k in ((1, 1 << 10), (2, 1), (3, 1 << 12))
]


def test_the_oracle_passes_what_the_planner_makes():
    for specs, axis_size in ((LARGE, 12), (LARGE, 1), (SEVERAL, 16)):
        check(plan(specs, "cpu:8", axis_size=axis_size), specs, Topology("cpu", 8), axis_size)


@pytest.mark.parametrize("axes", [{"lanes": 2, "model": 4}, {"lanes": 4, "model": 2}, {"lanes": 1, "model": 8}])
def test_the_oracle_sees_a_mesh_that_leaves_more_bytes(axes):
    worse = plan(LARGE, Topology("cpu", 8, tuple(axes.items())), axis_size=12, rules=[("*", ("lanes", None, None))])
    with pytest.raises(AssertionError, match="another mesh leaves"):
        check(worse, LARGE, Topology("cpu", 8), 12)


def test_the_oracle_sees_a_worse_order():
    good = plan(SEVERAL, "cpu:8", axis_size=16)
    held, backwards = 0, []
    for step in reversed(good.steps):
        backwards.append(replace(step, held=held, peak=held + step.made + step.temporaries + COUNTER))
        held += step.made
    with pytest.raises(AssertionError, match="another order has"):
        check(replace(good, steps=tuple(backwards)), SEVERAL, Topology("cpu", 8), 16)


def test_the_oracle_sees_a_plan_that_says_what_is_not_so():
    good = plan(LARGE, "cpu:8", axis_size=12)
    first = good.states[0]
    light = replace(first, leaves=(replace(first.leaves[0], bytes_per_device=1),))
    with pytest.raises(AssertionError, match="holds"):
        check(replace(good, states=(light,)), LARGE, Topology("cpu", 8), 12)
    odd = replace(first, leaves=(replace(first.leaves[0], partition_spec=("lanes", "model", "model")),))
    lanes_again = replace(first, leaves=(replace(first.leaves[0], partition_spec=("model", None, None)),))
    for wrong in (odd, lanes_again):
        with pytest.raises(AssertionError):
            check(replace(good, states=(wrong,)), LARGE, Topology("cpu", 8), 12)
    with pytest.raises(AssertionError, match="no factorization"):
        check(replace(good, mesh_axes=(("lanes", 8),)), LARGE, Topology("cpu", 8), 12)
    with pytest.raises(AssertionError):
        check(replace(good, steps=good.steps * 2), LARGE, Topology("cpu", 8), 12)


def test_the_oracle_weighs_orders_and_slices():
    costs = [Cost(10, (0,)), Cost(1, (10, 4))]
    assert peak_of([(10, 0), (1, 10)], "cpu") == 21 + COUNTER
    assert least_peak(costs, "cpu", sliced=False) == 11 + COUNTER
    assert least_peak(costs, "cpu", sliced=True) == 11 + COUNTER
    assert least_peak([Cost(1, (10, 4))], "cpu", sliced=True) == 5 + COUNTER
