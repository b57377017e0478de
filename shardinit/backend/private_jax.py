"""The private names of JAX that shardinit depends on, all of them, in one place.

Checked against jax 0.10.0 to 0.12.0. ``tests/test_private_names.py`` fails when one of them moves. Of each: what for,
and what would replace it.

- ``Trace``, ``Tracer``, ``set_current_trace``, ``trace_ctx``, ``eval_trace``: traces of our own
  (``lane/trace.py``, ``compiler/eager_steps.py``). A public interface for interpreters.
- ``OVERRIDDEN``: methods of these two that ours override. The same.
- ``ARRAY_MEMBERS``, ``REFUSED``: what concrete arrays can do, and tracers do not
  (``lane/stand_in.py``). A list of what belongs to the public ``jax.Array``.
- ``CONCRETE``, ``ARRAY``: names of JAX's functions whose frames a tracer looks for. A second method beside
  ``to_concrete_value``, for those that only ask.
- ``NamedAxisEffect``: what a collective has instead of an effect. A public class of effects.
- ``AbstractRef``, ``acts`` (``RefEffect``, ``InternalMutableArrayEffect``): mutable arrays, and what is done to them
  inside of a ``jit``, which nothing outside sees. A public ``jax.Ref`` type with its effects.
- ``bind``: applies a primitive to values, by ``Primitive.get_bind_params``. A public ``eval_eqn``.
- ``extend_axis_env_nd``: names a mapped axis during the trace, for collectives. ``jax.make_jaxpr(axis_env=...)`` for
  traces that are not its own.
- ``get_concrete_mesh``, ``thread_resources``: the ambient mesh, set by either of JAX's two ways.
  ``jax.sharding.get_mesh``, which asks for the first way only.
- ``UNSPECIFIED``: the sharding of a ``jit`` that asks for none, where init asked for one. None, as in ``jax.jit``.
- ``backends_are_initialized``: whether device settings still have an effect. A public function of that name.
- ``distributed_state``: the client of the coordination service, for its key-value store and barriers. A public client.
- ``settings``, ``settings_by_name``, ``entered``: JAX's configuration as it is at a line of user code, and going back
  to it. A public ``trace_context`` that can be entered again.
- ``configuration``: all that decides what the same equations compile to. A public key of JAX's own cache.
- ``PRIMITIVES``, ``NUMBER_BY_NUMBER``, ``is_known``, ``know``, ``mixes_lanes``: names of the primitives that the
  tables in ``lane`` are made of. Public objects: ``jax.extend.core.primitives`` has most.
- ``PARAMETERS``: what is read of a primitive's parameters. Documented parameters; there are none.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from jax._src import config as _config
from jax._src.array import ArrayImpl
from jax._src.compiler import get_compile_options
from jax._src.core import (
    InternalMutableArrayEffect,
    NamedAxisEffect,
    Trace,
    Tracer,
    eval_trace,
    extend_axis_env_nd,
    set_current_trace,
    trace_ctx,
)
from jax._src.distributed import global_state as distributed_state
from jax._src.mesh import get_concrete_mesh, thread_resources
from jax._src.sharding_impls import UNSPECIFIED
from jax._src.state.types import AbstractRef, RefEffect
from jax._src.xla_bridge import backends_are_initialized
from jax.extend.core import Primitive

try:
    from jax._src.prng import PRNGKeyArray
except ImportError:  # it moved in jax 0.12
    from jax._src.random.prng import PRNGKeyArray

__all__ = [
    "ARRAY",
    "ARRAY_MEMBERS",
    "AbstractRef",
    "CONCRETE",
    "NUMBER_BY_NUMBER",
    "NamedAxisEffect",
    "OVERRIDDEN",
    "PARAMETERS",
    "PRIMITIVES",
    "REFUSED",
    "RefEffect",
    "UNSPECIFIED",
    "Trace",
    "Tracer",
    "acts",
    "backends_are_initialized",
    "bind",
    "configuration",
    "distributed_state",
    "entered",
    "eval_trace",
    "extend_axis_env_nd",
    "get_concrete_mesh",
    "is_known",
    "know",
    "mixes_lanes",
    "set_current_trace",
    "settings",
    "settings_by_name",
    "thread_resources",
    "trace_ctx",
]

OVERRIDDEN = {
    "Trace": frozenset(
        {"process_primitive", "process_call", "process_custom_jvp_call", "process_custom_vjp_call"}
        | {"process_shard_map", "stage_value"}
    ),
    "Tracer": frozenset({"to_concrete_value", "full_lower", "_short_repr", "_error_repr"}),
}
CONCRETE, ARRAY = "concrete_or_error", "array"  # the first needs a value to go on, the second would only copy it


def acts(effects: Any) -> bool:
    """Whether any of the effects reaches beyond the equation: names of axes and mutable arrays inside of it do not."""
    return any(not isinstance(e, (NamedAxisEffect, RefEffect, InternalMutableArrayEffect)) for e in effects)


# ---- arrays

ARRAY_MEMBERS = frozenset(dir(ArrayImpl)) | frozenset(dir(PRNGKeyArray))
# Of these, what ``Tracer`` has only to raise an error.
REFUSED = (
    *("__array__", "__bool__", "__complex__", "__dlpack__", "__float__", "__hex__", "__index__", "__int__", "__oct__"),
    *("__reduce__", "addressable_data", "addressable_shards", "committed", "device", "devices", "global_shards"),
    *("is_fully_addressable", "is_fully_replicated", "item", "on_device_size_in_bytes", "sharding", "tobytes"),
    *("tolist", "traceback", "unsafe_buffer_pointer"),
)

# ---- primitives: the names that the tables in ``lane`` may use, and so what is known of JAX

_KINDS = {
    "number by number": """
        abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e bitcast_convert_type cbrt ceil
        clamp clz complex conj convert_element_type cos cosh digamma div eq eq_to erf erf_inv erfc exp exp2 expm1 floor
        ge gt igamma igamma_grad_a igammac imag integer_pow is_finite le le_to lgamma log log1p log2 logistic lt lt_to
        max min mul mulhi ne neg nextafter not one_minus_square or polygamma polynomial population_count pow real
        reduce_precision regularized_incomplete_beta rem round rsqrt select_n shift_left shift_right_arithmetic
        shift_right_logical sign sin sinh sqrt square sub tan tanh xor zeta""",
    "moved": """
        broadcast_in_dim concatenate copy device_put dynamic_slice dynamic_update_slice empty gather iota name
        optimization_barrier pad reshape rev scatter slice split squeeze stack stage stop_gradient tile transpose
        unstack""",
    "reduced": """
        approx_top_k argmax argmin cumlogsumexp cummax cummin cumprod cumsum reduce reduce_and reduce_max reduce_min
        reduce_or reduce_prod reduce_sum reduce_window reduce_window_max reduce_window_min reduce_window_sum reduce_xor
        scatter-add scatter-max scatter-min scatter-mul scatter-sub select_and_gather_add select_and_scatter
        select_and_scatter_add sort top_k""",
    "multiplied and factored": """
        cholesky cholesky_update conv_general_dilated dot_general eig eigh fft geqp3 geqrf hessenberg
        householder_product lu lu_pivots_to_permutation ormqr qr ragged_dot_general schur svd symmetric_product
        triangular_solve tridiagonal tridiagonal_solve""",
    "drawn": """
        iota_2x32_shape philox2x32 philox4x32 random_bits random_clone random_fold_in random_gamma random_seed
        random_split random_unwrap random_wrap rng_bit_generator rng_uniform threefry2x32 threefry4x32""",
    "over lanes": """
        all_gather all_gather_invariant all_to_all axis_index pbroadcast pmax pmin ppermute psum psum_invariant pvary
        reduce_scatter""",
    "with functions": """
        call closed_call composite cond custom_jvp_call custom_lin custom_linear_solve custom_vjp_call custom_vmap_call
        eval_jaxpr jit linear_call platform_index program_order remat2 remat_opt scan while""",
    "placed": "layout_constraint reshard sharding_constraint",
    "with effects": "debug_callback debug_print io_callback pure_callback",
}
NUMBER_BY_NUMBER = frozenset(_KINDS["number by number"].split()) | {"copy", "device_put"}
PRIMITIVES = frozenset(name for names in _KINDS.values() for name in names.split())

PARAMETERS = {
    "cond": ("branches",),
    "device_put": ("devices",),
    "jit": ("ctx_mesh", "donated_invars", "in_layouts", "in_shardings", "jaxpr", "name", "out_shardings"),
    "psum": ("axis_index_groups",),
    "random_split": ("shape",),
    "scan": ("jaxpr", "length", "reverse"),
    "while": ("body_jaxpr", "body_nconsts", "cond_jaxpr", "cond_nconsts"),
    "slice": ("limit_indices", "start_indices", "strides"),
    "custom_jvp_call": ("jvp_jaxpr_fun",),
    "custom_vjp_call": ("bwd", "fwd_jaxpr_thunk", "out_trees"),
}

_of_jax: set[Primitive] = set()
_of_others: set[Primitive] = set()
_mixing_lanes: set[Primitive] = set()


def know(*primitives: Primitive, mixing_lanes: bool = False) -> None:
    """Take primitives of another library for known: they do what their names say, and no table needs to have them.

    ``mixing_lanes`` says that what they give one lane depends on which others are mapped with it.
    """
    _of_others.update(primitives)
    if mixing_lanes:
        _mixing_lanes.update(primitives)


def mixes_lanes(primitive: Primitive) -> bool:
    """Whether ``know`` was told that a primitive mixes lanes."""
    return primitive in _mixing_lanes


def is_known(primitive: Primitive) -> bool:
    """Whether a primitive is one of ``PRIMITIVES``, and JAX's own: others may have the same name."""
    if primitive in _of_others:
        return True
    if primitive.name not in PRIMITIVES:
        return False
    if primitive not in _of_jax:
        modules = [module for name, module in list(sys.modules.items()) if name.startswith("jax._src.")]
        _of_jax.update(v for m in modules for v in list(vars(m).values()) if isinstance(v, Primitive))
    return primitive in _of_jax


def bind(primitive: Primitive, params: dict[str, Any], arguments: Any) -> list[Any]:
    """Apply a primitive under the current trace; the results as a list."""
    values = primitive.bind(*arguments, **primitive.get_bind_params(params))
    return list(values) if primitive.multiple_results else [values]


# ---- configuration

# Not what is computed but where, or by whom: the plan says where, and Python has run already.
_PLACES = frozenset({"jax_default_device", "jax_no_execution", "check_vma", "jax_check_tracer_leaks"})


def _settings() -> dict[str, Any]:
    """Every setting that JAX itself makes part of its traces, but for ``_PLACES``.

    JAX names them since 0.10.2; before that there is no such function, and beside an older jaxlib it is one that raises
    NotImplementedError. There all settings are taken: more programs than needed count as different, never fewer.
    """
    try:
        traced = set(_config.trace_context_names())
    except (AttributeError, NotImplementedError):
        traced = set(_config.config_states)
    named = {name: state for name, state in _config.config_states.items() if name in traced - _PLACES}
    contexts = (_config.compute_on_context_manager, _config.xla_metadata_context_manager)
    return named | dict(zip(("compute_on", "xla_metadata"), contexts, strict=True))


_SETTINGS = _settings()
Settings = tuple[Any, ...]


def settings() -> Settings:
    """Read the settings of this thread, in the order of ``_SETTINGS``."""
    return tuple(setting.value for setting in _SETTINGS.values())


def settings_by_name(values: Settings) -> dict[str, Any]:
    """Name the values that ``settings`` read."""
    return dict(zip(_SETTINGS, values, strict=True))


@contextlib.contextmanager
def entered(values: Settings) -> Iterator[None]:
    """Have the settings that were read before, inside."""
    with contextlib.ExitStack() as stack:
        for setting, value in zip(_SETTINGS.values(), values, strict=True):
            if setting.value is not value and setting.value != value:
                stack.enter_context(setting(value) if isinstance(setting, _config.State) else _swapped(setting, value))
        yield


@contextlib.contextmanager
def _swapped(setting: Any, value: Any) -> Iterator[None]:
    before = setting.swap_local(value)
    try:
        yield
    finally:
        setting.set_local(before)


def configuration() -> tuple[Any, ...]:
    """Everything of JAX's configuration in this thread, and the compiler options that come of it, as a key."""
    values = tuple((name, repr(holder.value)) for name, holder in sorted(_config.config._value_holders.items()))
    options = get_compile_options(num_replicas=1, num_partitions=1).SerializeAsString()
    return (_config.trace_context(), values, options, os.environ.get("XLA_FLAGS"), os.environ.get("LIBTPU_INIT_ARGS"))
