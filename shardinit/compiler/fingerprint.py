"""What must be the same in every process, as short texts that can be compared between them.

Everything is named by its content: a digest is the same in every process that runs the same code.
"""

import hashlib
import os
import platform
import re
from importlib.metadata import version

import jax

from shardinit.backend.private_jax import settings, settings_by_name
from shardinit.compiler.grouping import Grouped
from shardinit.lane.digest import value_digest
from shardinit.lane.equations import Variable
from shardinit.lane.program import LaneProgram
from shardinit.spec.plan import InitPlan

PACKAGES = ("shardinit", "jax", "jaxlib", "brainstate", "brainunit", "numpy")

_OWN_FILES = re.compile(r"--xla_dump\S*|--xla_gpu_per_fusion_autotune_cache_dir\S*")


def environment_fields() -> dict[str, str]:
    """Versions and settings of this process, and the kinds of its devices."""
    fields = {f"{name} version": version(name) for name in PACKAGES}
    fields["Python version"] = platform.python_version()
    fields["devices"] = ", ".join(sorted({f"{d.platform} {d.device_kind}" for d in jax.local_devices()}))
    fields |= {name: str(value) for name, value in settings_by_name(settings()).items()}
    fields |= {f"jax_{name}": str(getattr(jax.config, f"jax_{name}")) for name in ("default_prng_impl", "debug_nans")}
    for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS"):
        fields[name] = " ".join(sorted(_OWN_FILES.sub("", os.environ.get(name, "")).split()))
    return fields


def program_fields(program: LaneProgram, plan: InitPlan, grouped: Grouped) -> dict[str, str]:
    """Digests of the plan and of the pieces in the order in which they run."""
    layout = grouped.layout
    pieces = hashlib.sha256(repr((layout.lanes_axis, layout.computed, layout.exact)).encode())
    for each in grouped.programs:
        pieces.update(repr((each.structure.content.digest, each.way, each.places)).encode())
    for number, instance in grouped.sequence:
        pieces.update(repr((number, instance.rows, [index for index, _ in instance.outputs])).encode())
        for value in (*instance.literals, *instance.constants):
            pieces.update(value_digest(value).encode())
    for output in program.outputs:
        pieces.update(f"{output.spec}".encode())
        for atom in output.atoms:
            if not isinstance(atom, Variable):
                pieces.update(value_digest(atom.value).encode())
    shape = f"axis_size={plan.axis_size}, mesh {dict(plan.mesh_axes)}, {len(plan.states)} states"
    return {
        "plan": f"{plan.fingerprint} ({shape})",
        "pieces": f"{pieces.hexdigest()[:16]} ({len(grouped.sequence)} pieces, {len(grouped.programs)} programs)",
    }
