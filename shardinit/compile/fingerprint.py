"""What must be the same in every process, as short texts that can be compared between them.

Everything is named by its content: a digest is the same in every process that runs the same code.
"""

import hashlib
import os
import platform
import re
from importlib.metadata import version
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.extend.core import Literal as JaxprLiteral

from shardinit.compile.layout import Layout
from shardinit.compile.programs import UniqueProgram
from shardinit.discover.program import LaneProgram
from shardinit.lane.canonical import IGNORED
from shardinit.lane.equations import Equation, Variable, is_key
from shardinit.lane.primitives import pure_params
from shardinit.plan.init_plan import InitPlan

PACKAGES = ("shardinit", "jax", "jaxlib", "brainstate", "brainunit", "numpy")

# JAX settings that change values, or which programs are compiled.
SETTINGS = (
    "enable_x64",
    "threefry_partitionable",
    "default_prng_impl",
    "default_matmul_precision",
    "numpy_dtype_promotion",
    "random_seed_offset",
    "debug_nans",
)

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_OWN_FILES = re.compile(r"--xla_dump\S*|--xla_gpu_per_fusion_autotune_cache_dir\S*")


def environment_fields() -> dict[str, str]:
    """Versions and settings of this process, and the kinds of its devices."""
    fields = {f"{name} version": version(name) for name in PACKAGES}
    fields["Python version"] = platform.python_version()
    fields["devices"] = ", ".join(sorted({f"{d.platform} {d.device_kind}" for d in jax.local_devices()}))
    for name in SETTINGS:
        fields[f"jax_{name}"] = str(getattr(jax.config, f"jax_{name}"))
    for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS"):
        fields[name] = " ".join(sorted(_OWN_FILES.sub("", os.environ.get(name, "")).split()))
    return fields


def program_fields(
    program: LaneProgram, plan: InitPlan, layout: Layout, unique: list[UniqueProgram], sequence: Any
) -> dict[str, str]:
    """Digests of the plan and of the pieces in the order in which they run."""
    pieces = hashlib.sha256(repr((layout.lanes_axis, layout.axis_size, layout.exact)).encode())
    for each in unique:
        pieces.update(_structure_text(each).encode())
    for number, instance in sequence:
        pieces.update(repr((number, instance.rows, [index for index, _ in instance.outputs])).encode())
        for value in (*instance.literals, *instance.constants):
            pieces.update(value_digest(value))
    for output in program.outputs:
        pieces.update(f"{output.spec}".encode())
        for atom in output.atoms:
            if not isinstance(atom, Variable):
                pieces.update(value_digest(atom.value))
    shape = f"axis_size={plan.axis_size}, mesh {dict(plan.mesh_axes)}, {len(plan.states)} states"
    return {
        "plan": f"{plan.fingerprint} ({shape})",
        "pieces": f"{pieces.hexdigest()[:16]} ({len(sequence)} pieces, {len(unique)} programs)",
    }


def value_digest(value: Any) -> bytes:
    """Digest of a value on the host, or on a device of this process, by bits."""
    if isinstance(value, jax.Array) and is_key(value):
        value = jax.random.key_data(value)
    array = np.asarray(value)
    text = repr(value) if array.dtype == object else ""
    found = hashlib.sha256(f"{array.dtype} {array.shape} {_ADDRESS.sub('', text)}".encode())
    if not text:
        found.update(np.ascontiguousarray(array).tobytes())
    return found.digest()


def _structure_text(program: UniqueProgram) -> str:
    structure = program.structure
    equations = [(_equation_text(e), s) for e, s in zip(structure.equations, structure.sources, strict=True)]
    outputs = [(source, str(aval)) for source, aval in structure.outputs]
    slots = [[*map(str, structure.literals)], [*map(str, structure.constants)], str(structure.shared), structure.keys]
    return repr((equations, outputs, slots, program.placements, program.slices))


def _equation_text(equation: Any) -> str:
    params = pure_params(equation) if isinstance(equation, Equation) else equation.params
    return f"{equation.primitive.name}[{_params_text(params)}]"


def _params_text(params: dict[str, Any]) -> str:
    return ", ".join(f"{name}={_param_text(params[name])}" for name in sorted(params) if name not in IGNORED)


def _param_text(value: Any) -> str:
    """A parameter by its content; printing would leave out what a jaxpr closes over, and most of a long array."""
    if isinstance(value, ClosedJaxpr) and value.jaxpr is not value:  # since jax 0.11 they are one class
        return f"{_param_text(value.jaxpr)} {_constants_text(value)}"
    if isinstance(value, Jaxpr):
        return f"{_jaxpr_text(value)} {_constants_text(value)}"
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        return value_digest(value).hex()
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(_param_text, value))})"
    if isinstance(value, (set, frozenset)):
        return f"{{{', '.join(sorted(map(_param_text, value)))}}}"
    if isinstance(value, dict):
        return f"{{{_params_text(value)}}}"
    return _ADDRESS.sub("", repr(value))


def _constants_text(jaxpr: Any) -> str:
    return str([value_digest(constant).hex() for constant in getattr(jaxpr, "consts", ())])


def _jaxpr_text(jaxpr: Jaxpr) -> str:
    names: dict[Any, str] = {}

    def name(atom: Any) -> str:
        if isinstance(atom, JaxprLiteral):
            return f"{value_digest(atom.val).hex()[:16]}:{atom.aval}"
        return names.setdefault(atom, f"v{len(names)}:{atom.aval}")

    def listed(atoms: Any) -> str:
        return ",".join(map(name, atoms))

    lines = [listed((*jaxpr.constvars, *jaxpr.invars))]
    lines += [f"{listed(e.outvars)}={_equation_text(e)}({listed(e.invars)})" for e in jaxpr.eqns]
    return "; ".join([*lines, listed(jaxpr.outvars)])
