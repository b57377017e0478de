"""The digest of a program, output by output: by which a plan knows what it was made for."""

from collections.abc import Iterable, Sequence
from typing import Any

from shardinit.lane.digest import content_of, equation_content
from shardinit.lane.equations import Constant, Variable, slice_of


def output_digests(outputs: Iterable[Sequence[Any]], inputs: Iterable[Variable]) -> tuple[str, ...]:
    """Digest what makes the atoms of each output, back to the keys.

    Keys and arrays that existed before init are inputs: of these only shape and dtype count.
    """
    outputs = list(outputs)
    names: dict[Any, str] = {v: content_of("key", i, v.aval).digest for i, v in enumerate(inputs)}

    def name(atom: Any) -> str:
        if atom not in names:
            value = () if isinstance(atom, Constant) else (atom.value,)
            names[atom] = content_of(atom.aval, *value).digest
        return names[atom]

    for equation in slice_of(a for atoms in outputs for a in atoms):
        made = content_of(equation_content(equation), [name(a) for a in equation.inputs]).digest
        names.update((v, f"{made} {i}") for i, v in enumerate(equation.outputs))
    return tuple(content_of([name(a) for a in atoms]).digest[:16] for atoms in outputs)
