"""What the compiler needs to know of single primitives, by name."""

import jax

from shardinit.discover.equations import Equation, jaxprs_of, primitive_names

# These move data and round nothing.
MOVES = frozenset(
    {"broadcast_in_dim", "concatenate", "copy", "device_put", "dynamic_slice", "dynamic_update_slice", "gather", "pad"}
    | {"reshape", "rev", "select_n", "slice", "squeeze", "stop_gradient", "transpose"}
)

# GSPMD gathers the whole array for these: they run one lane at a time, under shard_map.
UNSPLITTABLE = frozenset(
    {
        "qr",
        "geqrf",
        "geqp3",
        "householder_product",
        "cholesky",
        "eigh",
        "eig",
        "svd",
        "lu",
        "lu_solve",
        "triangular_solve",
    }
    | {"fft", "sort", "scan", "while", "cumsum", "cumprod", "cummax", "cummin", "schur", "hessenberg", "tridiagonal"}
)

# These add up many numbers, in an order that a backend chooses by the size of the whole batch: eager
# brainstate itself gives a lane other last bits for another axis_size there.
ACCUMULATING = frozenset(
    {"reduce_sum", "reduce_prod", "dot_general", "conv_general_dilated", "cumsum", "cumprod", "cumlogsumexp"}
    | {"reduce_window_sum", "ragged_dot", "scatter-add", "scatter_add"}
)


def contains(equation: Equation, names: frozenset[str]) -> bool:
    """Whether an equation, or one in a jaxpr that it carries, is one of these primitives."""
    return not names.isdisjoint(primitive_names(equation.primitive, equation.params))


def accumulates(equation: Equation) -> bool:
    """Whether an equation adds up floating-point numbers that differ by lane."""
    return _adds_up(equation.primitive, equation.params) and any(
        v.on_axis and jax.numpy.issubdtype(v.aval.dtype, jax.numpy.inexact) for v in equation.outputs
    )


def _adds_up(primitive, params) -> bool:
    if ACCUMULATING.isdisjoint(primitive_names(primitive, params)):
        return False
    if params.get("name") == "diagonal":  # jnp.diagonal sums under a mask that leaves one number
        return False
    return primitive.name in ACCUMULATING or any(
        _adds_up(e.primitive, e.params) for j in jaxprs_of(params) for e in j.eqns
    )
