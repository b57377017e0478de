"""Programs that a machine wrote, on meshes."""

from tests.fuzz.compare import MANY
from tests.fuzz.search import Search


def test_programs_on_meshes():
    search = Search(MANY, most=3, sizes=(8, 6), settings=(), slow=False)
    for seed in range(2):
        difference = search.chunk(seed, 50, shrink=False)
        assert difference is None, difference
    assert search.counts["initializations"] > 80
