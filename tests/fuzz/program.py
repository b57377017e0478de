"""Init programs as data. A program prints itself as a Python module: what runs is what is pasted to reproduce it."""

from dataclasses import dataclass

HEADER = """\
from typing import NamedTuple

import brainstate
import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
from brainstate import HiddenState, LongTermState, ParamState, ShortTermState

import shardinit
from shardinit import NonBatchState

R = brainstate.random
ON_HOST = np.array([0.1, 0.2, 0.3], np.float32)
ON_DEVICE = jnp.arange(6.0).reshape(2, 3) * 0.3


@jax.custom_jvp
def softened(v):
    return jnp.where(v > 0, v, 0.1 * v)


softened.defjvp(lambda primals, tangents: (softened(*primals), tangents[0]))


@jax.custom_vjp
def scaled(v):
    return v * 1.1 + 0.2


scaled.defvjp(lambda v: (scaled(v), None), lambda _, g: (g,))


class Pair(NamedTuple):
    first: object
    second: object


@jax.tree_util.register_pytree_node_class
class Record:
    def __init__(self, value, label):
        self.value, self.label = value, label

    def tree_flatten(self):
        return (self.value,), self.label

    @classmethod
    def tree_unflatten(cls, label, children):
        return cls(*children, label)


class Own(HiddenState):
    pass
"""


@dataclass(frozen=True, slots=True)
class Let:
    """``name = code``."""

    name: str
    code: str

    def __str__(self) -> str:
        return f"{self.name} = {self.code}"


@dataclass(frozen=True, slots=True)
class Function:
    """A function of one array, of the same shape and dtype."""

    name: str
    steps: tuple[str, ...]

    def __str__(self) -> str:
        steps = "".join(f"    v = {step}\n" for step in self.steps)
        return f"def {self.name}(v):\n    dtype = v.dtype\n{steps}    return v.astype(dtype)\n"


@dataclass(frozen=True, slots=True)
class Keep:
    """``self.name = state_class(code)``; of class None an attribute outside of any State."""

    name: str
    state_class: str | None
    code: str
    tag: str | None = None

    def __str__(self) -> str:
        if self.state_class is None:
            return f"self.{self.name} = {self.code}"
        tag = "" if self.tag is None else f", tag={self.tag!r}"
        return f"self.{self.name} = {self.state_class}({self.code}{tag})"


@dataclass(frozen=True, slots=True)
class Part:
    """A module: what its constructor does, what its init does."""

    name: str
    constructor: tuple[str, ...]
    init: tuple[Let | Keep | str, ...]
    order: int = 0

    def __str__(self) -> str:
        made = "".join(f"        {line}\n" for line in ("super().__init__()", *self.constructor))
        done = "".join(f"        {line}\n" for line in self.init or ("pass",))
        order = f"    @brainstate.nn.call_order({self.order})\n" if self.order else ""
        head = f"class {self.name}(brainstate.nn.Module):\n    def __init__(self):\n{made}"
        return f"{head}\n{order}    def init_state(self):\n{done}"


@dataclass(frozen=True, slots=True)
class Program:
    """Modules, of which the last is initialized, with the arguments of ``vmap2_new_states``."""

    functions: tuple[Function, ...]
    parts: tuple[Part, ...]
    axis_size: int
    axes: str = "None"
    state_tag: str | None = None
    setting: str = "contextlib.nullcontext()"

    @property
    def source(self) -> str:
        """The Python module."""
        arguments = (
            f"arguments = {{'axis_size': {self.axis_size}, 'state_out_axes': {self.axes}, "
            f"'state_tag': {self.state_tag!r}}}\n"
        )
        setting = f"def setting():\n    return {self.setting}\n"
        blocks = [HEADER, *self.functions, *self.parts, f"Main = {self.parts[-1].name}\n{arguments}", setting]
        return "import contextlib\n\n" + "\n\n".join(map(str, blocks))

    def run(self) -> dict:
        """Names of the module."""
        names: dict = {"__name__": "fuzzed"}
        exec(compile(self.source, "fuzzed.py", "exec"), names)
        return names
