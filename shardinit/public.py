"""The public names, all of them: importing this imports JAX and brainstate."""

# ruff: noqa: F401

from shardinit.certify.certificate import Certificate
from shardinit.certify.certify import certify
from shardinit.compile.compiler import CompiledInit, compile
from shardinit.discover.discovery import discover
from shardinit.discover.private_brainstate import NonBatchState
from shardinit.discover.program import LaneProgram
from shardinit.emulate import emulate_cpu
from shardinit.errors import (
    ArgumentError,
    ArgumentTypeError,
    AxisAssignmentError,
    BackendStartedError,
    CertificateError,
    DeletedArrayError,
    DisagreementError,
    JoinError,
    LaneValueError,
    LaunchError,
    MemoryBudgetError,
    PlanError,
    RewrittenStateError,
    ShardInitError,
    TargetError,
    VersionError,
)
from shardinit.execute.executor import InitResult, execute
from shardinit.execute.receipt import Receipt
from shardinit.initialize import pmap2_new_states, shard_new_states, vmap2_new_states
from shardinit.jax_errors import ConcreteValueError
from shardinit.plan.init_plan import InitPlan
from shardinit.plan.planner import plan
from shardinit.plan.specs import LeafSpec, StateSpec
from shardinit.plan.topology import Topology
