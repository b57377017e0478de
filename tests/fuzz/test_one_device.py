"""Programs that a machine wrote, on one device."""

from tests.fuzz.compare import ONE
from tests.fuzz.search import Search


def test_programs_on_one_device():
    search = Search(ONE, most=3, sizes=(6,), settings=(), slow=False)
    assert search.chunk(1, 100, shrink=False) is None
    assert search.counts["initializations"] > 90
