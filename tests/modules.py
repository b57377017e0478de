"""Modules whose init covers what the tests are about."""

import brainstate
import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
from brainstate import HiddenState, LongTermState, ParamState, ShortTermState

import shardinit


class Draws(brainstate.nn.Module):
    """Every kind of draw that default initializers make."""

    def init_state(self):
        r = brainstate.random
        self.normal = ParamState(r.normal(size=(17, 8)) * 0.02)
        self.uniform = ParamState(r.uniform(-1.0, 2.0, size=(16, 5)))
        self.truncated = ParamState(r.truncated_normal(-2.0, 2.0, size=(8, 8)))
        self.bernoulli = ShortTermState(r.bernoulli(0.3, size=(32,)))
        self.integers = ShortTermState(r.randint(0, 100, size=(8,)))
        self.gamma = ShortTermState(r.gamma(2.0, size=(8,)))
        self.exponential = ShortTermState(r.exponential(size=(8,)))
        self.permutation = ShortTermState(r.permutation(16))
        self.poisson = ShortTermState(r.poisson(3.0, size=(8,)))
        self.choice = ShortTermState(r.choice(jnp.arange(10), size=(4,)))


class Table(brainstate.nn.Module):
    """A large array from outside, read number by number."""

    VALUES = np.linspace(0.0, 1.0, 1 << 21, dtype=np.float32).reshape(2048, 1024)

    def init_state(self):
        self.weight = ParamState(self.VALUES * 2 + brainstate.random.uniform(size=self.VALUES.shape))


class Orthogonal(brainstate.nn.Module):
    """QR, which no partitioner can split."""

    def __init__(self, size=16):
        super().__init__()
        self.size = size

    def init_state(self):
        key = brainstate.random.split_key()
        self.weight = ParamState(jax.nn.initializers.orthogonal()(key, (self.size, self.size)))


class Values(brainstate.nn.Module):
    """Every kind of value that a state can hold."""

    def init_state(self):
        self.array = ParamState(jnp.arange(6.0).reshape(2, 3))
        self.int_ = ShortTermState(0)
        self.float_ = ShortTermState(0.5)
        self.bool_ = ShortTermState(True)
        self.complex_ = ShortTermState(1j)
        self.numpy_scalar = ShortTermState(np.float32(2))
        self.numpy_array = ShortTermState(np.arange(3))
        self.numpy_double = ShortTermState(np.arange(3.0))
        self.weak = ShortTermState(jnp.asarray(1.0) * 2)
        self.half = ShortTermState(jnp.zeros((4,), jnp.bfloat16))
        self.none = ShortTermState(None)
        self.key = ShortTermState(jax.random.key(3))
        self.tree = ParamState({"weight": jnp.ones((3, 4)), "bias": brainstate.random.normal(size=(4,)), "n": 3})
        self.quantity = HiddenState(brainstate.random.normal(size=(5,)) * u.mV - 65.0 * u.mV)
        self.shared = shardinit.NonBatchState(jnp.arange(3))
        self.shared_int = shardinit.NonBatchState(3)
        self.shared_numpy = shardinit.NonBatchState(np.arange(3.0))


class Inner(brainstate.nn.Module):
    def __init__(self, size):
        super().__init__()
        self.size = size

    def init_state(self):
        self.v = HiddenState(brainstate.random.normal(size=(self.size,)))


class Nested(brainstate.nn.Module):
    """Nested and shared modules, lists, an order of calls, states that read states, temporaries."""

    def __init__(self):
        super().__init__()
        self.first = Inner(3)
        self.layers = [Inner(4), Inner(4), Inner(5)]
        self.again = self.first
        self.by_name = {"a": Inner(2)}

    @brainstate.nn.call_order(2)
    def init_state(self):
        temporary = ShortTermState(brainstate.random.uniform(size=(3,)))
        temporary.value = temporary.value + 1.0
        self.sum = LongTermState(temporary.value + self.first.v.value)
        self.double = ShortTermState(self.layers[0].v.value * 2.0)


class Normalized(brainstate.nn.Module):
    """Arithmetic after draws: chains that a compiler would contract, reductions, products."""

    def init_state(self):
        w = brainstate.random.normal(size=(33, 20))
        self.affine = ParamState(w * 0.3 - 65.0)
        self.unit_norm = ParamState(w / jnp.linalg.norm(w, axis=1, keepdims=True))
        self.spectral = ParamState(w / jnp.sqrt(jnp.sum(w**2)))
        self.standard = ParamState((w - w.mean()) / w.std())
        self.softmax = ParamState(jax.nn.softmax(w, axis=-1))
        self.gelu = ParamState(jax.nn.gelu(w) + 0.5 * w)
        self.gram = ParamState(w.T @ w * 0.1)
        self.cumulative = ParamState(jnp.cumsum(w, axis=0) / 3.0)
        self.rayleigh = ParamState(jnp.sqrt(-2.0 * jnp.log1p(-brainstate.random.uniform(size=(101,)))) * 1.7 + 0.1)
        spectrum = jnp.fft.rfft(brainstate.random.normal(size=(64,)))
        self.colored = ParamState(jnp.fft.irfft(spectrum / (1.0 + jnp.arange(33.0))))
        self.sorted = ParamState(jnp.sort(brainstate.random.normal(size=(50,))) * 2.0)
        a = brainstate.random.normal(size=(12, 12))
        self.cholesky = ParamState(jnp.linalg.cholesky(a @ a.T + 12.0 * jnp.eye(12)))
        self.scanned = ParamState(
            jax.lax.scan(lambda c, x: (c * 0.9 + x, c), 0.0, brainstate.random.normal(size=(40,)))[1]
        )
