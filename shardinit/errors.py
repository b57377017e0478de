"""Every exception that shardinit raises on purpose.

::

    ShardInitError
    ├── ArgumentError (ValueError)          an argument that cannot be right, whatever the module
    ├── ArgumentTypeError (TypeError)       an argument of the wrong type
    ├── AxisAssignmentError (ValueError)    a state whose out axis is ambiguous or does not exist
    ├── LaneValueError (ValueError)         a value that differs by lane where it must not
    │   └── RewrittenStateError             ... in a state that existed before
    ├── ConcreteValueError (TypeError)      init code that needs the concrete value of what differs by lane; it is
    │                                       a jax.errors.ConcretizationTypeError, so it is in jax_errors.py
    ├── DeletedArrayError (RuntimeError)    init code that uses an array after its ``delete()``
    ├── PlanError (ValueError)              states that cannot be placed on the mesh
    ├── MemoryBudgetError (ValueError)      states that fit no device, however they are split
    ├── CertificateError (RuntimeError)     a certificate that cannot be made: a compiler that is not installed, ...
    ├── BackendStartedError (RuntimeError)  a setting that comes after the backend has started
    ├── VersionError (ImportError)          a package that is missing, or of a version that is not supported
    ├── TargetError (ValueError)            a command-line target that gives no module
    ├── LaunchError (ValueError)            variables or flags that do not say how many processes there are, and which
    ├── JoinError (TimeoutError)            a process that never came
    └── DisagreementError (RuntimeError)    processes that would compute different things

Each leaf also inherits the built-in that a caller of brainstate would catch.
An exception that the module's own init code raises is passed on unchanged.
"""


class ShardInitError(Exception):
    """Root of every error that shardinit raises on purpose."""


class ArgumentError(ShardInitError, ValueError):
    """An argument whose value cannot be right, whatever the module."""


class ArgumentTypeError(ShardInitError, TypeError):
    """An argument of the wrong type."""


class AxisAssignmentError(ShardInitError, ValueError):
    """A state whose out axis is ambiguous, or does not exist in its leaves."""


class LaneValueError(ShardInitError, ValueError):
    """A value that differs by lane in a place that all lanes share."""


class RewrittenStateError(LaneValueError):
    """A state that existed before, into which init writes what differs by lane."""


class DeletedArrayError(ShardInitError, RuntimeError):
    """Init code that uses an array that it deleted itself."""


class PlanError(ShardInitError, ValueError):
    """States that cannot be placed on the mesh as asked."""


class MemoryBudgetError(ShardInitError, ValueError):
    """States that do not fit the memory of a device, however they are split."""


class CertificateError(ShardInitError, RuntimeError):
    """A certificate that cannot be made, such as for a compiler that is not installed."""


class BackendStartedError(ShardInitError, RuntimeError):
    """A setting that has no effect any more, since JAX's backend has started."""


class VersionError(ShardInitError, ImportError):
    """A package that is missing, or has a version that is not supported."""


class TargetError(ShardInitError, ValueError):
    """A command-line target that does not lead to a module."""


class LaunchError(ShardInitError, ValueError):
    """Variables or flags that are half set or contradict each other about the processes of a job."""


class JoinError(ShardInitError, TimeoutError):
    """A process that did not come within the deadline."""


class DisagreementError(ShardInitError, RuntimeError):
    """Processes that would compute different things."""
