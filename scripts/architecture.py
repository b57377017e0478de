"""Draw the floors of the package from its imports: ``python scripts/architecture.py`` writes ``docs/architecture.svg``.

``--check`` writes nothing and fails if the picture is not that of today's imports. An arrow says that one imports the
other; arrows that follow from others are left out.
"""

import ast
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path
from textwrap import wrap

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "shardinit"
PICTURE = ROOT / "docs" / "architecture.svg"

FLOORS = (
    ("cli",),
    ("api",),
    ("certifier", "executor"),
    ("compiler",),
    ("frontends",),
    ("lane",),
    ("backend",),
    ("launch",),
    ("report", "planner"),
    ("spec",),
)
WIDTH, BOX, HEIGHT, GAP, MARGIN = 860, 400, 62, 26, 20
MOST_LETTERS = 62
STYLE = """
  .box { fill: #f4f6f8; stroke: #9aa7b4 } .nojax { fill: #e6f2ea; stroke: #7fae90 }
  .name { font: 600 15px sans-serif; fill: #14202b } .what { font: 12px sans-serif; fill: #44525f }
  .arrow { stroke: #8a97a4; fill: none; stroke-width: 1.3 } .head { fill: #8a97a4 }
"""


def imported(folder: str) -> set[str]:
    """Folders that the files of a folder import, those aside that methods for users reach up to."""
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    found = {name for path in (PACKAGE / folder).rglob("*.py") for name in _imports(path)}
    return {name for name in found if floor[name] > floor[folder]}


def _imports(path: Path) -> Iterator[str]:
    known = {name for floor in FLOORS for name in floor}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("shardinit."):
            name = node.module.split(".")[1]
            if name in known:
                yield name


def arrows() -> list[tuple[str, str]]:
    """Imports between folders, without those that follow from others."""
    names = [name for floor in FLOORS for name in floor]
    direct = {name: imported(name) for name in names}

    def reached(name: str) -> set[str]:
        return direct[name].union(*(reached(other) for other in direct[name]))

    return [
        (name, other)
        for name in names
        for other in sorted(direct[name])
        if not any(other in reached(between) for between in direct[name] if between != other)
    ]


def picture() -> str:
    """The picture as SVG."""
    places: dict[str, tuple[float, float, float]] = {}
    boxes = []
    for row, floor in enumerate(FLOORS):
        width = BOX if len(floor) > 1 else WIDTH - 2 * MARGIN
        for column, name in enumerate(floor):
            x = MARGIN + column * (WIDTH - 2 * MARGIN - BOX) if len(floor) > 1 else MARGIN
            y = MARGIN + row * (HEIGHT + GAP)
            places[name] = (x + width / 2, y, width)
            boxes += _box(name, x, y, width)
    height = MARGIN + len(FLOORS) * (HEIGHT + GAP)
    lines = [_arrow(places[a], places[b], number) for number, (a, b) in enumerate(arrows())]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">'
    title = "<title>The floors of shardinit: each imports only what is below it. Green: needs no JAX.</title>"
    mark = (
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path class="head" d="M0 0L8 4L0 8z"/></marker></defs>'
    )
    return "\n".join([head, title, f"<style>{STYLE}</style>", mark, *boxes, *lines, "</svg>", ""])


def _box(name: str, x: float, y: float, width: float) -> list[str]:
    files = [p for p in (PACKAGE / name).rglob("*.py") if p.name != "__init__.py"]
    text = ast.get_docstring(ast.parse((PACKAGE / name / "__init__.py").read_text())) or ""
    what = text.split("\n\n")[0].replace("\n", " ")
    lines = wrap(what, MOST_LETTERS if width == BOX else 2 * MOST_LETTERS)[:2]
    kind = "box nojax" if name in ("launch", "planner", "report", "spec") else "box"
    found = [
        f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{HEIGHT}" rx="6"/>',
        f'<text class="name" x="{x + 14:g}" y="{y + 22:g}">{name}/ '
        f'<tspan class="what">{len(files)} files</tspan></text>',
    ]
    found += [
        f'<text class="what" x="{x + 14:g}" y="{y + 40 + 15 * number:g}">{escape(line)}</text>'
        for number, line in enumerate(lines)
    ]
    return found


def _arrow(start: tuple[float, float, float], end: tuple[float, float, float], number: int) -> str:
    """Straight down to the next floor; along the side of the boxes between to one further down."""
    (x, y, width), (to_x, to_y, to_width) = start, end
    bottom = y + HEIGHT
    if to_y - bottom <= GAP + 1:
        at = min(max(x, to_x - to_width / 2 + 30), to_x + to_width / 2 - 30)
        at = min(max(at, x - width / 2 + 30), x + width / 2 - 30)
        return f'<path class="arrow" marker-end="url(#head)" d="M{at:g} {bottom:g}L{at:g} {to_y:g}"/>'
    side = WIDTH - 8 - 3 * (number % 4)
    right, to_right = x + width / 2, to_x + to_width / 2
    middle, to_middle = y + HEIGHT / 2, to_y + HEIGHT / 2
    path = f"M{right:g} {middle:g}L{side:g} {middle:g}L{side:g} {to_middle:g}L{to_right:g} {to_middle:g}"
    return f'<path class="arrow" marker-end="url(#head)" d="{path}"/>'


def main(arguments: list[str]) -> int:
    """Write the picture, or check it."""
    made = picture()
    if "--check" not in arguments:
        PICTURE.write_text(made)
        return 0
    if PICTURE.is_file() and PICTURE.read_text() == made:
        return 0
    print(f"{PICTURE} is not that of today's imports. Run: python scripts/architecture.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
