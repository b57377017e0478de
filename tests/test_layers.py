"""Imports go down the floors of the package, never up."""

import ast
from pathlib import Path

import pytest

import shardinit

ROOT = Path(shardinit.__file__).parent
FLOORS = [
    "public",
    "cli",
    "launch",
    "initialize",
    "report",
    "execute",
    "certify",
    "compile",
    "discover",
    "lane",
    "plan",
    "emulate",
    "ambient",
    "exchange",
    "private_jax",
    "versions",
    "drawing",
    "threads",
    "seeds",
    "wording",
    "jax_errors",
    "errors",
]

UP = ("init_plan.py", "certify")  # plan.certify() is for users; nothing of planning needs it


def floor_of(path: Path) -> int | None:
    name = path.relative_to(ROOT).parts[0].removesuffix(".py")
    return None if name == "__init__" else FLOORS.index(name)


def imports_of(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("shardinit."):
            yield node.module.split(".")[1]


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path):
    floor = floor_of(path)
    if floor is None:
        return
    for name in imports_of(path):
        if (path.name, name) != UP:
            assert FLOORS.index(name) >= floor, f"{path} imports shardinit.{name}, which is above it"


def test_an_import_that_goes_up_would_be_found(tmp_path):
    source = tmp_path / "planner.py"
    source.write_text("from shardinit.execute.run import run\n")
    assert [FLOORS.index(n) >= FLOORS.index("plan") for n in imports_of(source)] == [False]


def test_only_discover_and_execute_know_brainstate():
    for path in FILES:
        if path.relative_to(ROOT).parts[0] in ("plan", "lane", "compile", "report"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                names += [a.name for a in node.names] if isinstance(node, ast.Import) else []
                assert not any(n.split(".")[0] == "brainstate" for n in names), path


def test_public_names_are_sorted_and_there():
    assert shardinit.__all__ == sorted(shardinit.__all__)
    for name in shardinit.__all__:
        assert getattr(shardinit, name).__doc__
