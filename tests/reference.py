"""brainstate's own eager initialization, as the reference for values."""

import brainstate
import brainunit
import jax
import numpy as np


def raw(value):
    """Leaves of a value as NumPy arrays, with type, dtype, weak type and unit."""
    out = []
    for leaf in jax.tree.leaves(value, is_leaf=lambda x: isinstance(x, brainunit.Quantity)):
        unit = str(brainunit.get_unit(leaf))
        leaf = brainunit.get_mantissa(leaf)
        if jax.dtypes.issubdtype(getattr(leaf, "dtype", None), jax.dtypes.prng_key):
            out.append((np.asarray(jax.random.key_data(leaf)), type(leaf), str(leaf.dtype), False, unit))
        else:
            weak = getattr(leaf, "weak_type", False)
            out.append((np.asarray(leaf), type(leaf), str(getattr(leaf, "dtype", None)), bool(weak), unit))
    return out


def assert_same(value, expected):
    """Values, types of leaves, dtypes, weak types, units and tree structure are equal, bit for bit."""
    assert jax.tree.structure(value) == jax.tree.structure(expected)
    for (a, *a_type), (b, *b_type) in zip(raw(value), raw(expected), strict=True):
        assert a_type == b_type
        assert a.shape == b.shape
        np.testing.assert_array_equal(a.view(np.uint8) if a.ndim else a, b.view(np.uint8) if b.ndim else b)


def assert_like_brainstate(make, initialize, *, axis_size, init_kwargs=None, seed=7, **options):
    """``initialize(module)`` leaves what brainstate's own function leaves: states, values, dictionary, RNG.

    Returns the module that ``initialize`` got, and what it returned.
    """
    kwargs = init_kwargs or {}
    brainstate.random.seed(seed)
    theirs = make()
    expected = brainstate.transform.vmap2_new_states(theirs, kwargs, axis_size=axis_size, **options)
    expected_key = jax.random.key_data(brainstate.random.DEFAULT.value)
    brainstate.random.seed(seed)
    ours = make()
    result = initialize(ours)
    found = getattr(result, "states", result)
    assert list(found) == list(expected)
    for axis in expected:
        assert [type(s) for s in found[axis]] == [type(s) for s in expected[axis]]
        for mine, reference in zip(found[axis], expected[axis], strict=True):
            assert mine.tag == reference.tag
            assert mine.stack_level == reference.stack_level
            assert_same(mine.value, reference.value)
    np.testing.assert_array_equal(jax.random.key_data(brainstate.random.DEFAULT.value), expected_key)
    return ours, result
