"""Errors of shardinit that are JAX's too, apart from ``errors`` since they import JAX."""

import jax

from shardinit.errors import ShardInitError


class ConcreteValueError(
    ShardInitError,
    jax.errors.TracerBoolConversionError,  # a ConcretizationTypeError
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
):
    """Init code that needs the concrete value of something that differs by lane.

    Whichever error JAX raises for that in eager brainstate, code that catches it catches this one.
    """

    def __init__(self, message: str):
        TypeError.__init__(self, message)  # JAX's own take the tracer, which must not outlive the trace


class ConcreteAttributeError(ConcreteValueError, AttributeError):
    """An attribute of concrete arrays that a value which differs by lane does not have: ``hasattr`` says so."""
