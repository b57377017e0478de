"""Ranks of processes as text."""

from collections.abc import Sequence


def ranks_text(ranks: Sequence[int]) -> str:
    """Name some ranks, runs of them shortened: ``ranks 0-2, 5``."""
    runs: list[list[int]] = []
    for rank in sorted(ranks):
        if runs and rank == runs[-1][-1] + 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    texts = [str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" if len(r) > 2 else f"{r[0]}, {r[1]}" for r in runs]
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(texts)}"
