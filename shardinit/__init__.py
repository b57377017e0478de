"""shardinit: brainstate states, initialized straight into distributed arrays.

The names are loaded on first use, so that ``shardinit.launch`` and the command line can start and watch
processes without JAX.
"""

# ruff: noqa: F403, F405

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shardinit import launch as launch
    from shardinit.public import *

__all__ = [
    "ArgumentError",
    "ArgumentTypeError",
    "AxisAssignmentError",
    "BackendStartedError",
    "Certificate",
    "CertificateError",
    "CompiledInit",
    "ConcreteValueError",
    "DeletedArrayError",
    "DisagreementError",
    "InitPlan",
    "InitResult",
    "JoinError",
    "LaneProgram",
    "LaneValueError",
    "LaunchError",
    "LeafSpec",
    "MemoryBudgetError",
    "NonBatchState",
    "PlanError",
    "Receipt",
    "RewrittenStateError",
    "ShardInitError",
    "StateSpec",
    "TargetError",
    "Topology",
    "VersionError",
    "certify",
    "compile",
    "discover",
    "emulate_cpu",
    "execute",
    "plan",
    "pmap2_new_states",
    "shard_new_states",
    "vmap2_new_states",
]


class _Package(ModuleType):
    """A module whose public names load on first use and win over subpackages of the same name."""

    def __getattr__(self, name: str) -> Any:
        if name == "launch":
            return importlib.import_module("shardinit.launch")
        if name not in __all__:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        importlib.import_module("shardinit.versions").check_versions()
        public = importlib.import_module("shardinit.public")
        for each in __all__:
            super().__setattr__(each, getattr(public, each))
        return getattr(public, name)

    def __setattr__(self, name: str, value: Any) -> None:
        # Importing shardinit.plan.planner would otherwise bind the name `plan` to the subpackage.
        if name not in __all__ or not isinstance(value, ModuleType):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package
