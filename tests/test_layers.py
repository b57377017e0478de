"""Imports go down the floors of the package, never up; the lower floors know neither JAX nor brainstate."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import shardinit

ROOT = Path(shardinit.__file__).parent
FLOORS = [
    "cli",
    "api",
    "certifier",
    "executor",
    "compiler",
    "frontends",
    "lane",
    "backend",
    "launch",
    "report",
    "planner",
    "spec",
    "versions",
    "wording",
    "errors",
]
# Methods for users that reach up, imported when they are called: nothing of ours calls them.
FOR_USERS = {
    ("spec/plan.py", "certifier"),
    ("spec/plan.py", "report"),
    ("spec/receipt.py", "report"),
    ("spec/certificate.py", "report"),
    ("spec/topology.py", "backend"),
    ("launch/__init__.py", "backend"),
}
# Floors that a machine without JAX can use, with what they may import of others.
WITHOUT_JAX = ["spec", "planner", "report", "launch"]


def imports_of(path: Path):
    """Floors that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "shardinit":
            yield from (node.module.split(".")[1:2] or [alias.name for alias in node.names])


FILES = sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path):
    place = path.relative_to(ROOT)
    floor = FLOORS.index(place.parts[0].removesuffix(".py"))
    for name in imports_of(path):
        if name in FLOORS and (str(place), name) not in FOR_USERS:
            assert FLOORS.index(name) >= floor, f"{place} imports shardinit.{name}, which is above it"


def test_methods_for_users_are_all_that_reach_up():
    reaching = {
        (str(p.relative_to(ROOT)), name)
        for p in FILES
        for name in imports_of(p)
        if name in FLOORS and FLOORS.index(name) < FLOORS.index(p.relative_to(ROOT).parts[0].removesuffix(".py"))
    }
    assert reaching == FOR_USERS


def test_an_import_that_goes_up_would_be_found(tmp_path):
    source = tmp_path / "search.py"
    source.write_text("from shardinit.executor.produce import produce\n")
    assert [FLOORS.index(n) >= FLOORS.index("planner") for n in imports_of(source)] == [False]


def test_no_two_files_import_each_other():
    """No circle, also not through others; methods for users aside."""
    names = {".".join(("shardinit", *p.relative_to(ROOT).with_suffix("").parts)): p for p in FILES}
    arrows = {name: set(_modules_of(path, names)) for name, path in names.items()}
    left = dict(arrows)
    while ends := [name for name, to in left.items() if not to & left.keys()]:
        for name in ends:
            del left[name]
    assert not left, f"in a circle, or above one: {sorted(left)}"


def _modules_of(path, names):
    for node in ast.parse(path.read_text()).body:  # not those inside of functions
        if isinstance(node, ast.ImportFrom) and node.module:
            for name in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names)):
                if name in names:
                    yield name


@pytest.mark.parametrize(
    "code",
    [
        *(f"import pkgutil, importlib, shardinit.{f} as f; "
          "[importlib.import_module(f'{f.__name__}.{m.name}') for m in pkgutil.iter_modules(f.__path__)]"
          for f in WITHOUT_JAX),
        "from shardinit import LeafSpec, StateSpec, Topology, InitPlan, launch",
        """
from shardinit.planner.search import plan
from shardinit.report.plan import plan_text
from shardinit.spec.options import PlanOptions
from shardinit.spec.program import ProgramSpec
from shardinit.spec.states import LeafSpec, StateSpec
from shardinit.spec.topology import Topology
state = StateSpec(("v",), "ShortTermState", (LeafSpec((8,), "float32", 4),))
found = plan(ProgramSpec.of_states([state]), Topology.named("h100:4x8"), PlanOptions(64))
assert "64 lanes" in plan_text(found) and type(found).from_json(found.to_json()) == found
""",
    ],
    ids=[*WITHOUT_JAX, "names", "planning"],
)  # fmt: skip
def test_these_need_neither_jax_nor_brainstate(code):
    _runs_without_jax(code)


def test_two_plans_are_compared_without_jax(tmp_path):
    specs = [shardinit.StateSpec(("v",), "ShortTermState", (shardinit.LeafSpec((8,), "float32", 4),))]
    for name, lanes in (("a", 8), ("b", 16)):
        (tmp_path / name).write_text(shardinit.plan(specs, "cpu:8", axis_size=lanes).to_json())
    _runs_without_jax(
        f"import sys; sys.argv[1:] = ['plan', '--diff', {str(tmp_path / 'a')!r}, {str(tmp_path / 'b')!r}]\n"
        "from shardinit.cli.commands import app\n"
        "try:\n    app()\nexcept SystemExit as error:\n    assert not error.code\n"
    )


def _runs_without_jax(code):
    after = "\nimport sys; assert not {'jax', 'brainstate'} & sys.modules.keys(), 'JAX or brainstate is loaded'"
    done = subprocess.run([sys.executable, "-c", code + after], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_only_the_front_end_and_what_users_call_know_brainstate():
    for path in FILES:
        if path.relative_to(ROOT).parts[0] not in ("frontends", "api", "cli"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                names += [a.name for a in node.names] if isinstance(node, ast.Import) else []
                assert not any(n.split(".")[0] == "brainstate" for n in names), path


def test_public_names_are_sorted_and_there():
    assert shardinit.__all__ == sorted(shardinit.__all__)
    for name in shardinit.__all__:
        assert getattr(shardinit, name).__doc__
