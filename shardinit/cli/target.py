"""Targets of the command line: ``package.module:factory`` or ``path/file.py:factory``."""

import ast
import hashlib
import importlib
import importlib.machinery
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Callable
from types import ModuleType
from typing import Any

from shardinit.errors import TargetError
from shardinit.wording import kind_of


class TargetFailedError(Exception):
    """The user's own code raised; the original is the cause."""


def load_factory(target: str) -> Callable[..., Any]:
    """Import what a target names.

    Raises
    ------
    TargetError
        If the text, the file, the module or the factory in it is not right.
    TargetFailedError
        If importing it raises.
    """
    place, name = _parts(target)
    module = _from_file(place) if _is_file(place) else _from_module(place)
    factory = getattr(module, name, None)
    if factory is None:
        names = [
            n for n, v in vars(module).items() if callable(v) and getattr(v, "__module__", None) == module.__name__
        ]
        raise TargetError(
            f"{place} has no {name!r}. It defines: {', '.join(sorted(names)) or 'nothing that can be called'}."
        )
    if not callable(factory):
        raise TargetError(f"{target} is {kind_of(factory)}, not a function that returns a module.")
    return factory


def check_target(target: str) -> None:
    """Say what is wrong with a target as far as its text tells: nothing is imported or run.

    Raises
    ------
    TargetError
        If the text, the file, its syntax or the factory in it is not right.
    """
    place, name = _parts(target)
    if not _is_file(place):
        path = _source_of_module(place)
        if path is None:
            return
    else:
        path = _existing(place)
    try:
        with open(path, "rb") as file:
            tree = ast.parse(file.read(), path)
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise TargetError(f"{path}{line}: {type(error).__name__}: {error.args[0]}.") from None
    except OSError as error:
        raise TargetError(f"cannot read {path}: {error.strerror}.") from None
    names = _names(tree)
    if names is not None and name not in names:
        raise TargetError(f"{place} has no {name!r}. It defines: {', '.join(sorted(names)) or 'nothing'}.")


def _parts(target: str) -> tuple[str, str]:
    place, colon, name = target.rpartition(":")
    if not colon or not place or not name:
        raise TargetError(f"TARGET {target!r} has no factory. Write path/file.py:factory or package.module:factory.")
    return place, name


def _is_file(place: str) -> bool:
    return place.endswith(".py") or os.sep in place


def _existing(path: str) -> str:
    if not os.path.isfile(path):
        raise TargetError(f"no file {path} (looked in {os.getcwd()}).")
    return path


def _source_of_module(name: str) -> str | None:
    """File of a module without a package around it; a package would have to be imported first."""
    if "." in name:
        return None
    spec = importlib.machinery.PathFinder.find_spec(name, [os.getcwd(), *sys.path])
    if spec is None and name not in sys.builtin_module_names:
        raise TargetError(f"no module {name!r} on the path. For a file write path/file.py:factory.")
    return spec.origin if spec is not None and (spec.origin or "").endswith(".py") else None


def _names(tree: ast.Module) -> set[str] | None:
    """Names that a module binds; None if that cannot be told without running it (``import *``, ``exec``, ...)."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.alias):
            found.add(node.asname or node.name.partition(".")[0])
    can_bind_unseen = found & {"*", "__getattr__"} or any(
        isinstance(node, ast.Name) and node.id in ("globals", "exec", "setattr", "vars") for node in ast.walk(tree)
    )
    return None if can_bind_unseen else found


def build_module(target: str) -> Any:
    """Call a target's factory.

    Raises
    ------
    TargetError
        If it returns something without ``init_all_states``.
    TargetFailedError
        If it raises.
    """
    factory = load_factory(target)
    try:
        module = factory()
    except Exception as error:
        raise TargetFailedError(f"{target} raised when called without arguments to build the module") from error
    if isinstance(module, type):
        raise TargetError(
            f"{target} returned the class {module.__name__}, not an instance. Return {module.__name__}()."
        )
    if not callable(getattr(module, "init_all_states", None)):
        raise TargetError(
            f"{target} returned {kind_of(module)} without init_all_states. Return a brainstate.nn.Module."
        )
    return module


def sources() -> dict[str, str]:
    """Digest of each file of the user's own that was imported, by the name of its module."""
    from shardinit.lane.frames import is_library

    installed = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
    found = {}
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None) or ""
        is_own = path.endswith(".py") and not is_library(name, path) and not path.startswith(installed)
        if is_own and os.path.isfile(path):
            with open(path, "rb") as file:
                found[f"source of {name}"] = hashlib.sha256(file.read()).hexdigest()[:16]
    return found


def _from_file(path: str) -> ModuleType:
    _existing(path)
    name = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise TargetError(f"{path} is not a Python file. Write path/file.py:factory.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise TargetFailedError(f"{path} raised while it was imported") from error
    return module


def _from_module(name: str) -> ModuleType:
    sys.path.insert(0, os.getcwd())
    try:
        found = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        found = None
    except Exception as error:
        raise TargetFailedError(f"{name} raised while it was imported") from error
    if found is None:
        raise TargetError(f"no module {name!r} on the path. For a file write path/file.py:factory.")
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise TargetFailedError(f"{name} raised while it was imported") from error
