"""What a ``jax.Array`` can do and a tracer refuses: told by the value, where all lanes share it."""

import copyreg
import inspect
import sys
from abc import abstractmethod
from functools import partial
from typing import Any

import jax

from shardinit.backend.jax_errors import ConcreteAttributeError, ConcreteValueError
from shardinit.backend.private_jax import ARRAY_MEMBERS, REFUSED, Tracer
from shardinit.lane.equations import is_key

NAMES = {
    **{"__array__": "np.asarray(...)", "__bool__": "bool(...) or a Python branch", "__int__": "int(...)"},
    **{"__float__": "float(...)", "__complex__": "complex(...)", "__index__": "a Python index", "__hex__": "hex(...)"},
    **{"__oct__": "oct(...)", "__buffer__": "a buffer", "__bytes__": "bytes(...)"},
}

NEW_OF_CLASS = copyreg.__newobj__  # type: ignore[attr-defined]


class StandIn(Tracer):
    """A tracer that can do what a concrete array can, wherever there is one."""

    __slots__ = ("__dict__",)
    __array_priority__ = 100  # of arrays; tracers have more

    @abstractmethod
    def concrete(self, what: str) -> jax.Array:
        """Compute the value, which ``what`` needs, or raise ``ConcreteValueError``."""

    @property
    @abstractmethod
    def is_shared(self) -> bool:
        """Whether there is a concrete array."""

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name not in ARRAY_MEMBERS:
                raise
        return self._told(name)

    def _told(self, name: str) -> Any:
        try:
            value = self.concrete(NAMES.get(name, f".{name}"))
        except ConcreteValueError as error:
            raise ConcreteAttributeError(str(error)) from None
        return getattr(value, name)

    def block_until_ready(self) -> Any:
        return self if self.is_shared else self._told("block_until_ready")

    def copy(self) -> Any:
        return self if is_key(self.aval) else super().copy()  # JAX's tracers cannot copy keys

    def __copy__(self) -> Any:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> Any:
        return self.copy()

    def __reduce_ex__(self, protocol: Any) -> Any:
        reduced: Any = self.concrete("pickle").__reduce_ex__(protocol)
        make, *rest = reduced
        return (object.__new__ if make is NEW_OF_CLASS else make, *rest)  # pickle refuses that of another class

    def __bytes__(self) -> Any:
        return bytes(self.concrete("bytes(...)"))

    def __repr__(self) -> Any:
        return repr(self.concrete("repr(...)")) if self.is_shared else super().__repr__()

    def __str__(self) -> Any:
        return str(self.concrete("str(...)")) if self.is_shared else super().__str__()

    def __format__(self, spec: Any) -> Any:
        return format(self.concrete("a format string"), spec) if self.is_shared or spec else str(self)

    if sys.version_info >= (3, 12):

        def __buffer__(self: Any, flags: Any) -> Any:
            return memoryview(self.concrete("a buffer"))


def _method(name: str) -> Any:
    def call(self: StandIn, *args: Any, **kwargs: Any) -> Any:
        value = self.concrete(NAMES.get(name, f".{name}()"))
        if name == "__bool__":  # a class without __bool__ has a truth value by its length
            return bool(value)
        return getattr(value, name)(*args, **kwargs)

    call.__name__ = name
    return call


for _name in REFUSED:
    _is_property = isinstance(inspect.getattr_static(Tracer, _name), property)
    setattr(StandIn, _name, property(partial(StandIn._told, name=_name)) if _is_property else _method(_name))
