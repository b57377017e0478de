"""Figures of the memory that compilers add to a program, read off the compilers themselves.

``python scripts/memory_figures.py`` compiles a small program for each figure and prints what the compiler implies
beside what is here; ``tests/planner/test_memory_figures.py`` says which have moved on the jax that is installed. Values
are of jaxlib 0.10.2 to 0.12 for CPU, its CUDA plugin for an H100, and libtpu 0.0.42 to 0.0.52 for v5e, unless a line
says more. By platform: ``cpu``, ``gpu``, ``tpu``.
"""

from shardinit.versions import version_of

WORD = 4

# What a piece needs whatever its size: its counter, rows of tables, scratch.
PIECE_BYTES = {"cpu": 3 << 10, "gpu": 4 << 10, "tpu": 16 << 10}

# What the key program needs beside the keys: on TPU, scratch of the scalar core.
KEY_PROGRAM_BYTES = {"cpu": 2 << 10, "gpu": 4 << 10, "tpu": 320 << 10}

# On TPU a table of literals is laid out anew for the lookup, a tile's row for each piece.
TABLE_ROW_BYTES = {"cpu": 0, "gpu": 0, "tpu": 512}

# Without a program nothing is known of a state's equations: it is taken for one normal draw. Words per number that
# live for each lane, and once for all of a device's.
DRAW_WORDS = {"cpu": (3, 0), "gpu": (0, 2), "tpu": (0, 2)}

# A key of two words, and what is derived from it, while bits are drawn on a CPU.
KEY_BYTES = 32

# Words of scratch per number of the result: loops inside of the backend's own code.
SCRATCH_WORDS = {"random_gamma": {"cpu": 37, "gpu": 24, "tpu": 20}}

# Scratch in sizes of the result: copies that the backend works on. On TPU factorizations are loops of small products.
# What a ``while`` carries is copied more often since jax 0.12 on a CPU.
FACTORIZATIONS = frozenset({"qr", "geqrf", "geqp3", "householder_product", "cholesky", "eigh", "svd", "lu"})
_SINCE_12 = tuple(map(int, (version_of("jaxlib") or "0").split(".")[:2])) >= (0, 12)
COPIES: dict[str, dict[str, int]] = {
    "cpu": dict.fromkeys(FACTORIZATIONS | {"scan"}, 1) | {"while": 11 if _SINCE_12 else 6},
    "gpu": dict.fromkeys(FACTORIZATIONS | {"scan"}, 1) | {"while": 3},
    "tpu": dict.fromkeys(FACTORIZATIONS, 45) | {"scan": 1, "while": 3},
}
COPIES_OF_UNKNOWN = 1
SORTS = frozenset({"sort", "top_k"})
COPIES_OF_SORTS = {"cpu": 0, "gpu": 1, "tpu": 1}  # in place on CPU

# Scratch of a TPU's scalar core, in units of so many bytes: for a piece that draws, and for each scalar operation; for
# any other piece (libtpu 0.0.50; 0.0.42 had none).
TPU_SCALAR_BYTES, TPU_DRAW_UNITS, TPU_UNITS_PER_SCALAR, TPU_OTHER_UNITS = 32256, 8.25, 0.95, 5
