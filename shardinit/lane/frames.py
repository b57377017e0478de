"""Whose code runs: the user's, or that of shardinit and the libraries that it builds on."""

import os
import sys
import types

# By the names of modules: a user's file may lie in a library's folder, or in no file at all.
CORE = frozenset(
    {"shardinit", "jax", "jaxlib", "numpy", "scipy", "ml_dtypes", "opt_einsum", "brainstate", "brainunit", "saiunit"}
)
MODEL_LIBRARIES = frozenset(
    {"brainpy", "brainpy_state", "braintools", "brainevent", "braincell", "brainscale", "brainmass", "braintrace"}
    | {"equinox", "lineax", "diffrax", "flax", "optax", "chex", "jaxtyping", "beartype", "typeguard", "wrapt"}
)
STDLIB = os.path.dirname(os.__file__) + os.sep
INSTALLED = tuple(STDLIB + folder + os.sep for folder in ("site-packages", "dist-packages"))


def is_library(module: str, filename: str) -> bool:
    """Whether code belongs to shardinit, to what it builds on or to Python itself, rather than to the user."""
    of_python = filename.startswith((STDLIB, "<frozen ")) and not filename.startswith(INSTALLED)
    return module.partition(".")[0] in CORE or of_python


def is_of_library(frame: types.FrameType) -> bool:
    """Whether a frame runs the code of a library; what ``exec`` or a notebook runs is the user's."""
    return is_library(frame.f_globals.get("__name__") or "", frame.f_code.co_filename)


def user_line() -> str:
    """Name the innermost line of the user's code inside of init, or else of a model library."""
    frame: types.FrameType | None = sys._getframe(1)
    of_model = None
    while frame is not None and not _starts_init(frame):
        if not is_of_library(frame):
            if (frame.f_globals.get("__name__") or "").partition(".")[0] not in MODEL_LIBRARIES:
                return _line(frame)
            of_model = of_model or _line(frame)
        frame = frame.f_back
    return of_model or "an unknown line"


def _starts_init(frame: types.FrameType) -> bool:
    module = frame.f_globals.get("__name__") or ""
    return frame.f_code.co_name == "trace_init" and module.startswith("shardinit.frontends.")


def _line(frame: types.FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno} ({frame.f_code.co_name})"
