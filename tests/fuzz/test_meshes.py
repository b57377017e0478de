"""Programs that a machine wrote, on meshes."""

from tests.fuzz.compare import MANY
from tests.fuzz.search import Search


def test_programs_on_meshes():
    search = Search(MANY, most=3, sizes=(8, 6), settings=(), slow=False)
    assert search.chunk(1, 100, shrink=False) is None
    assert search.counts["initializations"] > 80
