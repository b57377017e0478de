"""What ``jax.disable_jit()`` opens: the same values, from loops whose bodies are steps of their own.

Under it eager JAX runs the Python of an operation that it makes of others, loops too, and compiles each step alone.
Loops whose number of rounds the data decide stay loops here: it is the steps in them that must round alone.
"""

from collections.abc import Callable, Sequence
from typing import Any

from jax import lax

from shardinit.lane.equations import evaluate_jaxpr, name_of

Step = Callable[[Any, Sequence[Any]], Sequence[Any]]  # an equation and its inputs -> its outputs


def evaluate_opened(
    jaxpr: Any, constants: Sequence[Any], arguments: Sequence[Any], new_steps: Callable[[], Step]
) -> list[Any]:
    """Evaluate a jaxpr step by step, with a new maker of steps inside of every loop."""
    step = new_steps()
    return evaluate_jaxpr(jaxpr, (*constants, *arguments), lambda e, inputs: _evaluate(e, inputs, step, new_steps))


def _evaluate(equation: Any, inputs: Sequence[Any], step: Step, new_steps: Callable[[], Step]) -> Sequence[Any]:
    name, params = name_of(equation.primitive), equation.params

    def run(jaxpr: Any, values: Any) -> list[Any]:
        inner = getattr(jaxpr, "jaxpr", jaxpr)
        return evaluate_opened(inner, getattr(jaxpr, "consts", ()), values, new_steps)

    if name == "while":
        ends = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
        of_cond, of_body, start = inputs[: ends[0]], inputs[ends[0] : ends[1]], inputs[ends[1] :]
        return lax.while_loop(
            lambda carry: run(params["cond_jaxpr"], [*of_cond, *carry])[0],
            lambda carry: run(params["body_jaxpr"], [*of_body, *carry]),
            list(start),
        )
    if name == "scan":
        carried = len(equation.outvars) - _count_rows(equation.outvars, params["jaxpr"].jaxpr.outvars)
        of_all = len(inputs) - _count_rows(equation.invars, params["jaxpr"].jaxpr.invars)
        consts, start, rows = inputs[: of_all - carried], inputs[of_all - carried : of_all], inputs[of_all:]

        def body(carry: Any, row: Any) -> Any:
            made = run(params["jaxpr"], [*consts, *carry, *row])
            return made[: len(carry)], made[len(carry) :]

        carry, made = lax.scan(body, list(start), list(rows), params["length"], params["reverse"])
        return [*carry, *made]
    if name == "jit":
        return run(params["jaxpr"], inputs)
    return step(equation, inputs)


def _count_rows(outside: Sequence[Any], inside: Sequence[Any]) -> int:
    """Count what a scan takes or makes a row at a time; JAX has no parameter for it that stays."""
    return sum(len(a.aval.shape) > len(b.aval.shape) for a, b in zip(outside, inside, strict=True))
