"""The doctor's checks of Python, JAX and its settings."""

import importlib.metadata
import os
import platform
import re
import signal
import sys
from collections import Counter
from pathlib import Path

from packaging.specifiers import SpecifierSet

from shardinit.launch.doctor_probe import Finding, Surroundings
from shardinit.versions import PACKAGE, fits, requirements_of, version_of
from shardinit.wording import size_text

PLUGINS = ("jax-cuda12-plugin", "jax-cuda13-plugin", "jax-rocm7-plugin")
FORCED = re.compile(r"--xla_force_host_platform_device_count=(\S+)")
TPU_FLAGS = re.compile(r"--(?:xla_tpu_|xla_jf_|xla_sc_|megascale_)\w+")
LAST_LINES = 3


def python(_: Surroundings) -> Finding:
    """Check this Python against the package's own bounds."""
    found = f"Python {platform.python_version()} at {sys.executable}"
    bounds = importlib.metadata.metadata(PACKAGE)["Requires-Python"] if version_of(PACKAGE) else ""
    if not SpecifierSet(bounds).contains(platform.python_version(), prereleases=True):
        return Finding("Python", "problem", f"{found}; {PACKAGE} needs {bounds}", f"Install a Python {bounds}.")
    return Finding("Python", "ok", found)


def packages(_: Surroundings) -> Finding:
    """Check the installed packages against the package's own bounds, and jaxlib and plug-ins against jax."""
    if version_of(PACKAGE) is None:
        return Finding("packages", "problem", f"{PACKAGE} is not installed, so its bounds are unknown", "pip install .")
    needed = [*requirements_of(PACKAGE), *(r for r in requirements_of("jax") if r.name == "jaxlib")]
    wrong = [r for r in needed if not fits(r)]
    jaxlib = version_of("jaxlib")
    plugins = [f"{p}=={jaxlib}" for p in PLUGINS if version_of(p) not in (None, jaxlib)]
    found = [f"{r.name} {version_of(r.name) or 'missing'} (needs {r.specifier})" for r in wrong]
    found += [f"{p.partition('==')[0]} {version_of(p.partition('==')[0])} (needs jaxlib's {jaxlib})" for p in plugins]
    if found:
        install = " ".join(f'"{each}"' for each in [*map(str, wrong), *plugins])
        return Finding("packages", "problem", ", ".join(found), f"pip install {install}")
    names = ("shardinit", "brainstate", "jax", "jaxlib", "jax-smi", *PLUGINS)
    return Finding("packages", "ok", ", ".join(f"{n} {version_of(n)}" for n in names if version_of(n) is not None))


def backend(here: Surroundings) -> Finding:
    """Say which devices JAX sees, or why it sees none."""
    seen = here.backend
    if seen.timed_out:
        return Finding(
            "backend",
            "problem",
            f"JAX's backend did not start within {seen.seconds:.0f} s: a driver hangs, or another process holds the "
            "device",
            "Look for processes on the device (nvidia-smi, or fuser /dev/accel0), or try JAX_PLATFORMS=cpu.",
        )
    if seen.platform is None:
        how = f"exit code {seen.code}" if (seen.code or 0) >= 0 else signal.Signals(-(seen.code or 0)).name
        lines = [line for line in seen.errors.splitlines() if line.strip()][-LAST_LINES:]
        return Finding(
            "backend", "problem", f"JAX's backend does not start ({how}): {' '.join(lines)}", _backend_fix(here)
        )
    kinds = ", ".join(f"{count} x {kind}" for kind, count in Counter(seen.kinds).items())
    limits = sorted({size_text(limit) for limit in seen.bytes_limits if limit is not None})
    memory = f", {' or '.join(limits)} each" if limits else ""
    what = f"{seen.platform}: {kinds}{memory}; started in {seen.seconds:.1f} s"
    idle = accelerator_files()
    if seen.platform == "cpu" and idle and "JAX_PLATFORMS" not in here.env:
        extra = "tpu" if "accel" in idle[0] else "cuda12"
        fix = f'pip install "{PACKAGE}[{extra}]", or say that it is meant: JAX_PLATFORMS=cpu.'
        return Finding("backend", "warning", f"{what}. JAX does not see {idle[0]}", fix)
    return Finding("backend", "ok", what)


def threads(here: Surroundings) -> Finding:
    """Check XLA's threads against emulated devices: with as many or fewer, batched LAPACK calls wait forever."""
    if here.backend.platform not in (None, "cpu"):
        return Finding("threads", "ok", f"no matter on {here.backend.platform}: no devices are emulated")
    forced = FORCED.findall(here.env.get("XLA_FLAGS", ""))
    source = "JAX_NUM_CPU_DEVICES" if here.env.get("JAX_NUM_CPU_DEVICES") else "XLA_FLAGS" if forced else ""
    asked = here.env.get("JAX_NUM_CPU_DEVICES") or (forced[-1] if forced else "1")
    pool = here.env.get("PJRT_NPROC")
    for name, text in ((source, asked), ("PJRT_NPROC", pool)):
        if text and not text.isdecimal():
            return Finding(
                "threads", "problem", f"{name}: {text!r} is not a number", f"Give {name} a number, such as 9."
            )
    devices, count = int(asked), int(pool or 0) or _processors()
    origin = "PJRT_NPROC" if pool else "the processors; PJRT_NPROC is not set"
    if devices < 2:
        return Finding("threads", "ok", f"no emulated devices are asked for; threads={count} ({origin})")
    what = f"emulated devices={devices} ({source}), threads={count} ({origin})"
    if count <= devices:
        return Finding(
            "threads",
            "problem",
            f"{what}: batched LAPACK calls (QR, Cholesky) on several devices wait for each other forever",
            f"export PJRT_NPROC={devices + 1}, or let shardinit run --devices {devices} set both instead of {source}.",
        )
    return Finding("threads", "ok", what)


def xla_flags(here: Surroundings) -> Finding:
    """Check for flags on which XLA aborts."""
    text = here.env.get("XLA_FLAGS", "")
    if tpu := TPU_FLAGS.findall(text):
        return Finding(
            "XLA_FLAGS",
            "problem",
            f"{', '.join(tpu)} in XLA_FLAGS: jaxlib does not know the TPU's flags and aborts",
            "Move them into LIBTPU_INIT_ARGS.",
        )
    if unknown := re.findall(r"Unknown flags? in XLA_FLAGS: (.+)", here.backend.errors):
        fix = "Take it out of XLA_FLAGS; the TPU's own flags belong in LIBTPU_INIT_ARGS."
        return Finding("XLA_FLAGS", "problem", f"{unknown[0].strip()} is unknown to this jaxlib, which aborts", fix)
    if text and not text.lstrip().startswith("-") and not Path(text.strip()).is_file():
        what = f"XLA_FLAGS={text} starts with no dash, so XLA reads it as a file of flags, which is not there"
        return Finding("XLA_FLAGS", "problem", what, "Write flags with their dashes: XLA_FLAGS=--name=value.")
    return Finding("XLA_FLAGS", "ok", text or "not set")


def accelerator_files() -> list[str]:
    """Files by which the kernel offers a GPU or TPU."""
    return [p for p in ("/dev/nvidia0", "/dev/accel0") if os.path.exists(p)]


def _backend_fix(here: Surroundings) -> str:
    if "XLA_FLAGS" in here.backend.errors:
        return "See XLA_FLAGS."
    asked = here.env.get("JAX_PLATFORMS")
    if asked and asked != "cpu":
        return (
            f"JAX_PLATFORMS={asked} asks for a backend that is not there: unset it, or install the backend's plug-in."
        )
    return f'Try {sys.executable} -c "import jax; print(jax.devices())"; JAX_PLATFORMS=cpu leaves the drivers alone.'


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
