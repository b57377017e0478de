"""The memory figures are those of the compiler that is installed: which have moved is said by name."""

import importlib.util
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "scripts" / "memory_figures.py"
spec = importlib.util.spec_from_file_location("memory_figures_script", PATH)
script = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = script
spec.loader.exec_module(script)


@pytest.mark.parametrize("figure", script.FIGURES, ids=lambda f: f.name)
def test_a_figure_is_the_compilers(figure):
    found = script.measure(figure, "cpu:1")
    assert found.predicted >= 1, f"{figure.name} has moved: {found.ours:g} here, the compiler's {found.implied:.2f}"
    assert found.predicted <= figure.most, f"{figure.name} has moved: {found.ours:g} here, {found.implied:.2f} would do"


def test_a_figure_that_has_moved_is_found():
    figure = script.FIGURES[0]
    with figure.changed("cpu", -10):
        assert script.measure(figure, "cpu:1").predicted < 1
