"""Which versions of other packages this one supports, by its own metadata, and whether they are there."""

import functools
import importlib.metadata
import os
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

from shardinit.errors import VersionError

PACKAGE = "shardinit"
ANY_VERSION = "SHARDINIT_ANY_VERSION"


def version_of(package: str) -> str | None:
    """Version that is installed; None if none is."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def requirements_of(package: str) -> list[Requirement]:
    """What a package needs here, extras aside; nothing if it is not installed."""
    found = [Requirement(text) for text in _texts(package)]
    return [each for each in found if each.marker is None or each.marker.evaluate({"extra": ""})]


def _texts(package: str) -> list[str]:
    """Requirements as they are written. A checkout has its own: metadata are of when it was installed, if it was."""
    checkout = Path(__file__).parents[1] / "pyproject.toml"
    if package == PACKAGE and checkout.is_file():
        return tomllib.loads(checkout.read_text(encoding="utf-8"))["project"]["dependencies"]
    try:
        return importlib.metadata.requires(package) or []
    except importlib.metadata.PackageNotFoundError:
        return []


def fits(requirement: Requirement) -> bool:
    """Whether what is installed is what is needed."""
    found = version_of(requirement.name)
    return found is not None and requirement.specifier.contains(found, prereleases=True)


@functools.cache
def check_versions() -> None:
    """Refuse, once per process, what this package does not know: it stands on private names of JAX and brainstate.

    Raises
    ------
    VersionError
        If a package is missing or has another version than is supported; not if ``SHARDINIT_ANY_VERSION=1``.
    """
    wrong = [each for each in requirements_of(PACKAGE) if not fits(each)]
    if not wrong or os.environ.get(ANY_VERSION) == "1":
        return
    found = ", ".join(f"{r.name} {version_of(r.name) or 'missing'} (supported: {r.specifier})" for r in wrong)
    install = " ".join(f'"{each.name}{each.specifier}"' for each in wrong)
    raise VersionError(
        f"{PACKAGE} {version_of(PACKAGE)} does not support what is installed: {found}. Run: "
        f"{os.path.basename(sys.executable)} -m pip install {install}, or a newer {PACKAGE}; "
        f"{ANY_VERSION}=1 tries it as it is."
    )
