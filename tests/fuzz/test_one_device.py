"""Programs that a machine wrote, on one device."""

from tests.fuzz.compare import ONE
from tests.fuzz.search import Search


def test_programs_on_one_device():
    search = Search(ONE, most=3, sizes=(6,), settings=(), slow=False)
    for seed in range(2):
        difference = search.chunk(seed, 50, shrink=False)
        assert difference is None, difference
    assert search.counts["initializations"] > 80
