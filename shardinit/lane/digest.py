"""What a program is, by content: the digest by which equal pieces, programs and plans are recognized.

Two traces of the same Python line give jaxprs that are different objects with the same content. Everything
here is named by its content, so a digest is the same in every process that runs the same code: it has no
``id()``, no address, no hash seed, no file or line in it. What has no content to be read, such as a function
behind a callback, is kept beside the digest and compared as itself: in one process two such things are never
taken for equal because they look alike. Between processes a function is known by its name, code and closure.
"""

import dataclasses
import enum
import functools
import hashlib
import re
import threading
import types
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Primitive
from jax.extend.core import Literal as JaxprLiteral

from shardinit.backend.private_jax import Settings, settings_by_name
from shardinit.lane.equations import Equation, is_key, name_of
from shardinit.lane.primitives import pure_params

# Parameters that say how to differentiate, how to print or what to call it: not part of the forward program.
# By primitive, since another one may mean something else by the same word.
_DERIVATIVES = frozenset({"jvp_jaxpr_fun", "fwd_jaxpr_thunk", "bwd", "out_trees", "debug_info"})
IGNORED = {
    "custom_jvp_call": _DERIVATIVES,
    "custom_vjp_call": _DERIVATIVES,
    "jit": frozenset({"name"}),
}

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_LIBRARIES = frozenset({"jax", "jaxlib", "numpy", "ml_dtypes"})
_UNITS = frozenset({"brainunit", "saiunit"})


@dataclass(frozen=True, slots=True)
class Content:
    """A digest, and what had no content to digest, in the order of its places in it: compared by ``==``.

    Python compares an object that says nothing else by identity. Whoever keeps a ``Content`` as a key keeps
    these objects alive, and nobody else does.
    """

    digest: str
    opaque: tuple[Any, ...] = ()
    array_bytes: int = dataclasses.field(default=0, compare=False)

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def is_code_alone(self) -> bool:
        """Whether no object of the user's stays alive with it, such as a module in a callback's closure."""
        return all(_is_code(x) for x in self.opaque)


NOTHING = Content("")


def _is_code(value: Any) -> bool:
    value = value.value if isinstance(value, _Itself) else value
    if isinstance(value, types.FunctionType):
        return not (value.__closure__ or value.__defaults__ or value.__kwdefaults__)
    return isinstance(value, (Primitive, type)) or _library(value) in _LIBRARIES | _UNITS


class _Itself:
    """An object that cannot be hashed, compared by identity."""

    __slots__ = ("value",)

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and self.value is other.value

    def __hash__(self) -> int:
        return 0


def content_of(*values: Any) -> Content:
    """Digest any values: numbers, arrays, jaxprs, avals, parameters, containers and contents of these."""
    writer = _Writer()
    for value in values:
        writer.write(value)
    return writer.content()


def equation_content(equation: Equation, *, pure: bool = True) -> Content:
    """Digest an equation but for its atoms: primitive, parameters, settings; without checks inside if ``pure``."""
    writer = _Writer()
    writer.primitive(equation.primitive, pure_params(equation) if pure else equation.params)
    writer.write(_settings_content(equation.settings))
    return writer.content()


@functools.lru_cache(maxsize=64)
def _settings_content(settings: Settings) -> Content:
    return content_of(settings_by_name(settings))


def value_digest(value: Any) -> str:
    """Digest a value on the host, or on a device of this process, by bits."""
    if isinstance(value, jax.Array) and is_key(value):
        value = jax.random.key_data(value)
    array = np.asarray(value)
    text = _ADDRESS.sub("", repr(value)) if array.dtype == object else ""
    found = hashlib.sha256(f"{array.dtype} {array.shape} {text}".encode())
    if not text:
        found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return found.hexdigest()[:32]


class _Writer:
    """Writes values into one hash, each with its type and an end, so that no two lists of them read alike."""

    def __init__(self) -> None:
        self.hash = hashlib.sha256()
        self.opaque: list[Any] = []
        self.array_bytes = 0
        self.inside: set[int] = set()  # objects being written now: what contains itself ends there

    def content(self) -> Content:
        return Content(self.hash.hexdigest()[:32], tuple(self.opaque), self.array_bytes)

    def text(self, *parts: Any) -> None:
        for part in parts:
            raw = str(part).encode(errors="surrogatepass")
            self.hash.update(b"%d:" % len(raw))
            self.hash.update(raw)

    def write(self, value: Any) -> None:
        if isinstance(value, enum.Enum):
            self.text("enum", _name(type(value)), value.name)
        elif value is None or isinstance(value, (bool, int, str, bytes, type(Ellipsis))):
            content = value.hex() if isinstance(value, bytes) else value
            self.text(type(value).__name__, getattr(value, "dtype", ""), content)
        elif isinstance(value, (float, complex, np.generic)):  # by bits: 0.0 == -0.0, and nan is not equal to itself
            array = np.asarray(value)
            self.text(type(value).__name__, getattr(value, "dtype", ""), array.dtype, array.tobytes().hex())
        else:
            self.whole(value)

    def whole(self, value: Any) -> None:
        """Write what may contain other values."""
        if id(value) in self.inside:
            self.text("again")
            return
        self.inside.add(id(value))
        try:
            if not self.known(value):
                self.unknown(value)
        finally:
            self.inside.discard(id(value))

    def known(self, value: Any) -> bool:
        """Write a value whose content can be read; tell whether it is one."""
        if isinstance(value, Content):
            self.text("content", value.digest, len(value.opaque))
            self.opaque += value.opaque
            self.array_bytes += value.array_bytes
        elif isinstance(value, (Jaxpr, ClosedJaxpr)):
            self.write(_jaxpr_content(value))
        elif isinstance(value, jax.core.AbstractValue):
            self.aval(value)
        elif isinstance(value, np.dtype):
            self.text("dtype", value.str if value.kind != "V" else value.name, value.name)
        elif isinstance(value, (np.ndarray, jax.Array)):
            self.array(value)
        elif isinstance(value, (tuple, list)):
            self.many(_name(type(value)), value)
        elif isinstance(value, Mapping):
            self.many("mapping", [x for k in sorted(value, key=repr) for x in (k, value[k])])
        elif isinstance(value, (set, frozenset)):
            self.many("set", sorted((content_of(x) for x in value), key=lambda c: c.digest))
        elif isinstance(value, jax.tree_util.PyTreeDef):
            self.many("tree", (value.node_data(), value.children()) if value.node_data() else (value.num_leaves,))
        elif isinstance(value, jax.sharding.Mesh):  # its fields are also what JAX keeps in it on the way
            self.many("mesh", (value.axis_names, value.axis_types, value.devices.shape, *value.devices.flat))
        elif isinstance(value, functools.partial):
            self.many("partial", (value.func, value.args, value.keywords))
        elif isinstance(value, types.MethodType):
            self.many("method", (value.__func__, value.__self__))
        elif _shows_itself(value):
            self.fields(value)
        else:
            return False
        return True

    def many(self, kind: str, values: Iterable[Any]) -> None:
        values = list(values)
        self.text(kind, len(values))
        for value in values:
            self.write(value)

    def fields(self, value: Any) -> None:
        self.many(_name(type(value)), [x for name in _fields(value) for x in (name, getattr(value, name, None))])

    def unknown(self, value: Any) -> None:
        """Write what is known of an object from outside, and keep the object."""
        self.text("opaque", _name(type(value)))
        self.opaque.append(value if type(value).__hash__ is not None else _Itself(value))
        if isinstance(value, types.FunctionType):
            self.text(_name(value))
            cells = [_content_of_cell(cell) for cell in value.__closure__ or ()]
            for part in (value.__code__, value.__defaults__, value.__kwdefaults__, cells):
                self._beside(part)
        elif isinstance(value, (type, types.BuiltinFunctionType)):
            self.text(_name(value))
        elif dataclasses.is_dataclass(value):
            count = len(self.opaque)
            self.fields(value)
            del self.opaque[count:]
        elif _library(value) in _LIBRARIES:
            self.text(_ADDRESS.sub("", repr(value)))

    def _beside(self, part: Any) -> None:
        """Write into the digest alone: the object that it belongs to is kept as a whole."""
        count = len(self.opaque)
        if isinstance(part, types.CodeType):
            self.text(part.co_code.hex(), part.co_names, part.co_argcount, len(part.co_consts))
            for constant in part.co_consts:
                self._beside(constant)
        else:
            self.write(part)
        del self.opaque[count:]

    def array(self, value: Any) -> None:
        self.array_bytes += value.nbytes
        if isinstance(value, jax.Array) and not value.is_fully_addressable:
            self.text("global array", value.shape, value.dtype, value.sharding)
            self.opaque.append(_Itself(value))
        else:
            weak = isinstance(value, jax.Array) and jax.typeof(value).weak_type
            self.text("array", isinstance(value, jax.Array), value.dtype, weak, value_digest(value))
            if value.dtype == object:
                self.opaque.append(_Itself(value))

    def aval(self, aval: Any) -> None:
        self.text(_name(type(aval)))
        if not hasattr(aval, "shape") or not hasattr(aval, "dtype"):
            self.text(_ADDRESS.sub("", str(aval)))
            return
        self.text(aval.shape, aval.dtype, getattr(aval, "weak_type", False), getattr(aval, "memory_space", None))
        if not isinstance(aval.dtype, np.dtype):  # an RNG of the user may have the name of another
            self.opaque.append(aval.dtype)
        sharding = getattr(aval, "sharding", None)
        if sharding is not None and not sharding.mesh.empty:
            self.text(sharding)

    def primitive(self, primitive: Primitive, params: Mapping[str, Any]) -> None:
        self.text("primitive", primitive.name, primitive.multiple_results)
        self.opaque.append(primitive)
        ignored = IGNORED.get(name_of(primitive), frozenset())
        for name in sorted(params.keys() - ignored):
            self.text(name)
            self.write(params[name])

    def jaxpr(self, jaxpr: Any) -> None:
        inner, constants = jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr, getattr(jaxpr, "consts", ())
        names: dict[Any, int] = {}

        def name(atom: Any) -> None:
            if isinstance(atom, JaxprLiteral):
                self.text("literal")
                self.write(atom.val)
                self.write(atom.aval)
            else:
                known = atom in names
                self.text(names.setdefault(atom, len(names)))
                if not known:
                    self.write(atom.aval)

        def listed(atoms: Any) -> None:
            self.text(len(atoms))
            for atom in atoms:
                name(atom)

        listed(inner.constvars)
        listed(inner.invars)
        self.text(len(inner.eqns))
        for equation in inner.eqns:
            self.primitive(equation.primitive, equation.params)
            self.write(equation.ctx)
            listed(equation.invars)
            listed(equation.outvars)
        listed(inner.outvars)
        self.many("constants", constants)


# Weak in its keys, and without what could hold on to a key: nothing here lives longer than the jaxpr.
_jaxprs: "weakref.WeakKeyDictionary[Any, Content]" = weakref.WeakKeyDictionary()
_jaxprs_lock = threading.Lock()


def _jaxpr_content(jaxpr: Any) -> Content:
    with _jaxprs_lock:
        found = _jaxprs.get(jaxpr)
    if found is None:
        writer = _Writer()
        writer.jaxpr(jaxpr)
        found = writer.content()
        if all(isinstance(x, (Primitive, type)) or _library(x) in _LIBRARIES for x in found.opaque):
            with _jaxprs_lock:
                _jaxprs[jaxpr] = found
    return found


def _name(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value)}"


def _content_of_cell(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is not filled yet
        return None


def _library(value: Any) -> str:
    return type(value).__module__.split(".")[0]


def _shows_itself(value: Any) -> bool:
    """Whether all that an object is stands in its fields: JAX's own dataclasses and plain Python objects."""
    if _library(value) != "jax" or isinstance(value, (type, Primitive)):
        return False
    return dataclasses.is_dataclass(value) or type(value).__eq__ is object.__eq__


def _fields(value: Any) -> list[str]:
    if dataclasses.is_dataclass(value):
        return [field.name for field in dataclasses.fields(value)]
    slots = [s for c in type(value).__mro__ for s in _slots(c)]
    return sorted({*slots, *getattr(value, "__dict__", {})} - {"__weakref__", "__dict__"})


def _slots(cls: type) -> tuple[str, ...]:
    slots = cls.__dict__.get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)
