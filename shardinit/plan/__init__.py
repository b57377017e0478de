"""Planning: pure functions from descriptions of states and devices to a plan."""

from shardinit.plan.init_plan import InitPlan, LeafPlan, StatePlan
from shardinit.plan.planner import plan
from shardinit.plan.specs import LeafSpec, StateSpec
from shardinit.plan.topology import Topology

__all__ = ["InitPlan", "LeafPlan", "LeafSpec", "StatePlan", "StateSpec", "Topology", "plan"]
