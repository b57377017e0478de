"""What JAX's configuration says is part of the key by which executables are kept: all of it, not a list of ours."""

import contextlib
import enum

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import shardinit
from shardinit.backend import private_jax

HOLDERS = private_jax._config.config._value_holders
SETTINGS = private_jax._SETTINGS
NAMED = {  # what the words of JAX's documentation say that it changes code or values
    "jax_use_shardy_partitioner",
    "jax_disable_most_optimizations",
    "jax_default_matmul_precision",
    "jax_threefry_partitionable",
    "jax_debug_nans",
    "jax_debug_infs",
    "jax_enable_x64",
    "jax_default_prng_impl",
    "jax_numpy_dtype_promotion",
    "jax_numpy_rank_promotion",
    "jax_enable_custom_prng",
    "jax_softmax_custom_jvp",
    "jax_compiler_enable_remat_pass",
    "jax_xla_profile_version",
}


def another(value):
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, enum.Enum):
        return next(member for member in type(value) if member is not value)
    if isinstance(value, (int, float)):
        return value + 1
    return "another" if value is None else f"{value} and more"


@contextlib.contextmanager
def changed(holder):
    """Have another value of a setting, by thread where JAX has it by thread."""
    if isinstance(holder, private_jax._config.State):
        before = holder.swap_local(another(holder.value))
        undo = holder.set_local
    else:
        before, undo = holder.value, holder._set
        holder._set(another(before))
    try:
        yield
    finally:
        undo(before)


def test_every_setting_of_jax_is_in_the_key():
    assert set(HOLDERS) >= NAMED
    before, looked_at = private_jax.configuration(), set()
    for name, holder in HOLDERS.items():
        with changed(holder):
            try:
                found = private_jax.configuration()
            except Exception:  # JAX refuses the value when it makes the compiler's options
                continue
        assert found != before, name
        looked_at.add(name)
    assert looked_at >= NAMED
    assert len(looked_at) > 100
    assert private_jax.configuration() == before


def test_every_setting_that_jax_traces_is_in_the_key():
    before, values = private_jax.configuration(), private_jax.settings()
    for number, (name, setting) in enumerate(SETTINGS.items()):
        if isinstance(setting, private_jax._config.State) and isinstance(setting.value, (bool, enum.Enum)):
            with private_jax.entered((*values[:number], another(setting.value), *values[number + 1 :])):
                assert private_jax.configuration() != before, name
    assert private_jax.configuration() == before


def test_flags_of_the_compiler_are_in_the_key(monkeypatch):
    before = private_jax.configuration()
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    assert private_jax.configuration() != before


class Scaled(brainstate.nn.Module):
    def init_state(self):
        drawn = brainstate.random.normal(size=(5, 5))
        self.w = brainstate.ParamState(drawn * 0.5 + 1.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("jax_default_matmul_precision", "highest"),
        ("jax_debug_nans", True),
        ("jax_threefry_partitionable", False),
    ],
)
def test_a_setting_compiles_anew_and_without_it_what_was_there_is_used(name, value):
    def initialize(make):
        module = Scaled()
        brainstate.random.seed(1)
        return make(module), np.asarray(module.w.value)

    def cached():
        receipt = initialize(lambda m: shardinit.shard_new_states(m, axis_size=2))[0].receipt
        return receipt.cached_programs, receipt.programs

    cached()
    assert cached()[0] == cached()[1]
    before = HOLDERS[name].value
    jax.config.update(name, value)
    try:
        assert cached()[0] == 0
        ours = initialize(lambda m: shardinit.vmap2_new_states(m, {}, axis_size=2))[1]
        eager = initialize(lambda m: brainstate.transform.vmap2_new_states(m, {}, axis_size=2))[1]
        np.testing.assert_array_equal(ours, eager)
    finally:
        jax.config.update(name, before)
    assert cached()[0] == cached()[1]


def test_compiler_options_of_a_jit_inside_init_are_in_the_key():
    class Optioned(brainstate.nn.Module):
        def __init__(self, level):
            super().__init__()
            self.level = level

        def init_state(self):
            options = {"xla_backend_optimization_level": self.level}
            double = jax.jit(lambda x: jnp.exp(x) * 2, compiler_options=options)
            self.v = brainstate.HiddenState(double(brainstate.random.uniform(size=(4,))))

    def digests(level):
        return [content.digest for content in contents(shardinit.discover(Optioned(level)))]

    def contents(program):
        return [structure.content for structure, _ in program.program.work(on_mesh=False, whole_lanes=True).pieces]

    assert digests(1) == digests(1)
    assert digests(1) != digests(3)
