"""Seeds: which integers start a random state."""

from shardinit.errors import ArgumentError


def check_seed(seed: int, name: str) -> None:
    """Refuse a seed that JAX would take for another one without a word: it keeps 32 bits.

    Raises
    ------
    ArgumentError
        If the seed is negative or needs more than 32 bits; names ``name``.
    """
    if not 0 <= seed < 2**32:
        raise ArgumentError(f"{name} {seed} is outside of 0 to {2**32 - 1}: JAX keeps 32 bits. Use {name} 0.")
