"""What the command line asks for, read and traced."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from shardinit.backend.rank import Rank
from shardinit.cli import options as o
from shardinit.cli.failure import code_of, fail
from shardinit.errors import ArgumentError, ArgumentTypeError, ShardInitError, VersionError
from shardinit.launch.exits import FAILED, REFUSED, USAGE
from shardinit.spec.options import AskedStrategy, Numerics, Remainder


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks for."""

    target: str
    axis_size: int
    devices: int | None
    topology: str | None
    kwargs: str
    seed: int | None
    strategy: AskedStrategy
    numerics: Numerics
    remainder: Remainder
    memory_budget: str | None
    rules: list[str] | None
    card: Path | None = None

    def plan(self, rank: Rank | None = None) -> tuple[Any, Any]:
        """Trace the program and plan it, or leave with the right exit code; ``rank`` joins the others first."""
        try:
            init_kwargs = json.loads(self.kwargs)
        except json.JSONDecodeError as error:
            fail(USAGE, f"--kwargs is not JSON ({error}). Write for example --kwargs '{{\"size\": 10}}'")
        if not isinstance(init_kwargs, dict):
            fail(USAGE, f"--kwargs is a JSON {type(init_kwargs).__name__}. Write an object, such as '{{\"size\": 10}}'")

        try:
            from shardinit import Topology, discover
            from shardinit import plan as make_plan
        except VersionError as error:
            fail(USAGE, str(error))
        from shardinit.cli.target import TargetFailedError, build_module

        try:
            rules = o.read_rules(self.rules)
            topology = self._topology_before_module(rank)
            module = build_module(self.target)
            if rank is not None:
                rank.agree("run", self._fields())
                rank.event("discovering", self.target)
        except TargetFailedError as error:
            fail(USAGE, str(error), error.__cause__)
        except ShardInitError as error:
            fail(code_of(error, USAGE), str(error))
        try:
            program = discover(module, init_kwargs)
        except ArgumentError as error:
            fail(USAGE, str(error))
        except Exception as error:
            fail(FAILED, "init_all_states failed", error)
        try:
            return program, make_plan(
                program,
                topology or Topology.local(),
                axis_size=self.axis_size,
                memory_budget=self.memory_budget,
                rules=rules,
                strategy=self.strategy,
                remainder=self.remainder,
                numerics=self.numerics,
            )
        except (ArgumentError, ArgumentTypeError) as error:
            fail(USAGE, str(error))
        except ShardInitError as error:
            fail(code_of(error, REFUSED), str(error))

    def _topology_before_module(self, rank: Rank | None) -> Any:
        """Set up what comes before the user's module, in this order: emulated devices, other ranks, the seed."""
        from shardinit import Topology, emulate_cpu
        from shardinit.backend.topologies import emulated_topology

        topology = None
        if self.topology is not None:
            import jax

            topology = Topology.named(self.topology, self.card)
            jax.config.update("jax_platforms", "cpu")  # planning needs none of the machine's accelerators
        elif self.devices is not None:
            emulate_cpu(self.devices)
            topology = emulated_topology(self.devices)
        if rank is not None:
            rank.join()
            topology = None if rank.spec.is_distributed else topology
        if self.seed is not None:
            import brainstate

            brainstate.random.seed(self.seed)
        return topology

    def _fields(self) -> dict[str, str]:
        """What all ranks of a run must have in common."""
        from shardinit.cli.target import sources
        from shardinit.compiler.fingerprint import environment_fields

        options = {"TARGET": self.target, **{f.name: getattr(self, f.name) for f in fields(self)[1:]}}
        return {**environment_fields(), **{name: str(value) for name, value in options.items()}, **sources()}
