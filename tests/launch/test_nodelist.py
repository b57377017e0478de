"""SLURM's short forms, against counting by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardinit.errors import LaunchError
from shardinit.launch.nodelist import expand_nodelist, expand_tasks


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("node001", ["node001"]),
        ("node001,host2", ["node001", "host2"]),
        ("node[001-003,020],host2", ["node001", "node002", "node003", "node020", "host2"]),
        ("a-[1-2]-b", ["a-1-b", "a-2-b"]),
        ("rack[1-2]n[09-10]", ["rack1n09", "rack1n10", "rack2n09", "rack2n10"]),
        ("n[8-11]", ["n8", "n9", "n10", "n11"]),
        ("n[098-100].cluster", ["n098.cluster", "n099.cluster", "n100.cluster"]),
    ],
)
def test_nodelists(text, hosts):
    assert list(expand_nodelist(text)) == hosts


@pytest.mark.parametrize("text", ["", "n[1,", "n1]", "n[]", "n[a-b]", "n[2-1]", "n 1", "a,,b", "n[[1]]"])
def test_nodelists_that_cannot_be_read(text):
    with pytest.raises(LaunchError, match="SLURM_STEP_NODELIST="):
        list(expand_nodelist(text, "SLURM_STEP_NODELIST"))


WORDS = st.from_regex(r"[a-z][a-z0-9-]{0,5}", fullmatch=True)
RANGES = st.lists(st.tuples(st.integers(0, 120), st.integers(0, 5), st.integers(1, 4)), min_size=1, max_size=3)
ITEMS = st.lists(st.tuples(WORDS, st.lists(st.tuples(RANGES, WORDS), max_size=2)), min_size=1, max_size=3)


@given(ITEMS)
def test_nodelists_expand_like_counting_by_hand(items):
    text, expected = [], []
    for prefix, groups in items:
        hosts, written = [prefix], prefix
        for ranges, suffix in groups:
            numbers = [f"{n:0{width}d}" for first, more, width in ranges for n in range(first, first + more + 1)]
            hosts = [host + number + suffix for host in hosts for number in numbers]
            pieces = [
                f"{first:0{width}d}-{first + more:0{width}d}" if more else f"{first:0{width}d}"
                for first, more, width in ranges
            ]
            written += f"[{','.join(pieces)}]{suffix}"
        text.append(written)
        expected += hosts
    assert list(expand_nodelist(",".join(text))) == expected


@given(st.lists(st.tuples(st.integers(1, 64), st.integers(1, 5)), min_size=1, max_size=5))
def test_tasks_per_node_expand(runs):
    text = ",".join(f"{tasks}(x{times})" if times > 1 else str(tasks) for tasks, times in runs)
    assert expand_tasks(text) == [tasks for tasks, times in runs for _ in range(times)]
