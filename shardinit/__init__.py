"""shardinit: brainstate states, initialized straight into distributed arrays.

The names are loaded on first use, so that ``shardinit.launch`` and the command line can start and watch
processes without JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shardinit import launch as launch
    from shardinit.api.compile import compile as compile
    from shardinit.api.drop_ins import pmap2_new_states as pmap2_new_states
    from shardinit.api.drop_ins import vmap2_new_states as vmap2_new_states
    from shardinit.api.ensemble import shard_new_states as shard_new_states
    from shardinit.api.execute import InitResult as InitResult
    from shardinit.api.execute import execute as execute
    from shardinit.api.plan import plan as plan
    from shardinit.backend.emulate import emulate_cpu as emulate_cpu
    from shardinit.backend.jax_errors import ConcreteValueError as ConcreteValueError
    from shardinit.certifier.certify import certify as certify
    from shardinit.compiler.compile import CompiledInit as CompiledInit
    from shardinit.errors import *  # noqa: F403
    from shardinit.frontends.brainstate.discovery import discover as discover
    from shardinit.frontends.brainstate.private_brainstate import NonBatchState as NonBatchState
    from shardinit.lane.program import LaneProgram as LaneProgram
    from shardinit.lane.program import Traced as Traced
    from shardinit.spec.certificate import Certificate as Certificate
    from shardinit.spec.plan import InitPlan as InitPlan
    from shardinit.spec.receipt import Receipt as Receipt
    from shardinit.spec.states import LeafSpec as LeafSpec
    from shardinit.spec.states import StateSpec as StateSpec
    from shardinit.spec.topology import Topology as Topology

_HOMES = {
    "api.compile": ["compile"],
    "api.drop_ins": ["pmap2_new_states", "vmap2_new_states"],
    "api.ensemble": ["shard_new_states"],
    "api.execute": ["InitResult", "execute"],
    "api.plan": ["plan"],
    "backend.emulate": ["emulate_cpu"],
    "backend.jax_errors": ["ConcreteValueError"],
    "certifier.certify": ["certify"],
    "compiler.compile": ["CompiledInit"],
    "errors": [
        *("ArgumentError", "ArgumentTypeError", "AxisAssignmentError", "BackendStartedError", "CertificateError"),
        *("DeletedArrayError", "DisagreementError", "JoinError", "LaneValueError", "LaunchError", "MemoryBudgetError"),
        *("PlanError", "RewrittenStateError", "ShardInitError", "TargetError", "VersionError"),
    ],
    "frontends.brainstate.discovery": ["discover"],
    "frontends.brainstate.private_brainstate": ["NonBatchState"],
    "lane.program": ["LaneProgram", "Traced"],
    "spec.certificate": ["Certificate"],
    "spec.plan": ["InitPlan"],
    "spec.receipt": ["Receipt"],
    "spec.states": ["LeafSpec", "StateSpec"],
    "spec.topology": ["Topology"],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name == "launch":
        return importlib.import_module("shardinit.launch")
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOME_OF[name]
    if home.partition(".")[0] not in ("errors", "spec"):  # these need neither JAX nor brainstate
        importlib.import_module("shardinit.versions").check_versions()
    globals()[name] = value = getattr(importlib.import_module(f"shardinit.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
