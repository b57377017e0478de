"""Planning: pure functions from descriptions of states and devices to a plan."""

from shardinit.plan.planner import InitPlan, LeafPlan, StatePlan, plan
from shardinit.plan.specs import LeafSpec, StateSpec
from shardinit.plan.topology import Topology

__all__ = ["InitPlan", "LeafPlan", "LeafSpec", "StatePlan", "StateSpec", "Topology", "plan"]
