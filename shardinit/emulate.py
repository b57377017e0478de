"""Emulated CPU devices: a mesh on a laptop and in CI."""

import os

import jax

from shardinit.errors import ArgumentError, ArgumentTypeError, BackendStartedError
from shardinit.private_jax import backends_are_initialized


def emulate_cpu(n: int) -> None:
    """Make JAX see ``n`` CPU devices. Call it before anything touches a device.

    Besides the number of devices it gives XLA's thread pool a thread more than there are devices: with
    as many or fewer, batched LAPACK calls (QR, Cholesky) on several devices wait for each other forever.

    Parameters
    ----------
    n
        Number of devices, at least 1.

    Raises
    ------
    BackendStartedError
        If JAX's backend has started, so that the setting would have no effect.
    ArgumentError, ArgumentTypeError
        If ``n`` is no integer of at least 1.

    Examples
    --------
    >>> import shardinit
    >>> shardinit.emulate_cpu(8)  # doctest: +SKIP
    """
    if isinstance(n, bool) or not isinstance(n, int):
        raise ArgumentTypeError(f"n={n!r} is a {type(n).__name__}. Pass the number of devices as an int, such as 8.")
    if n < 1:
        raise ArgumentError(f"n={n} devices cannot be emulated. Pass at least 1.")
    if backends_are_initialized():
        raise BackendStartedError(
            f"cannot emulate n={n} CPU devices: the backend has already started, with {jax.device_count()} device(s). "
            "Call shardinit.emulate_cpu before the first array, jax.devices() or random key."
        )
    os.environ["PJRT_NPROC"] = str(max(n + 1, os.cpu_count() or 1, int(os.environ.get("PJRT_NPROC", 0))))
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", n)
