"""One way to write specs as JSON, and to read them: everything that this release writes has its version.

A text is an object with its ``type``, the ``version`` of all types together, and the fields of the dataclass. Another
version, a field that is not known and one that is missing are errors that say so.
"""

import json
from typing import Any, TypeVar

from shardinit.errors import ArgumentError, ArgumentTypeError
from shardinit.wording import kind_of

VERSION = 6
STRICT = {"extra": "forbid"}  # ``__pydantic_config__`` of every dataclass that is read

Spec = TypeVar("Spec")


def to_json(value: Any) -> str:
    """Write a spec, with sorted keys. What ``derived`` names of its class is written too, and not read."""
    return json.dumps(to_fields(value), sort_keys=True)


def to_fields(value: Any) -> dict[str, Any]:
    """Fields as JSON has them, with type and version."""
    of = type(value)
    fields = _adapter(of).dump_python(value, mode="json", exclude=set(getattr(of, "unwritten", ())))
    derived = {name: getattr(value, name) for name in getattr(of, "derived", ())}
    return {"type": of.__name__, "version": VERSION, **fields, **derived}


def from_json(text: str | bytes, of: type[Spec], *, within: str | None = None) -> Spec:
    """Read what ``to_json`` wrote of a value of class ``of``, or an object that has it under the name ``within``.

    Raises
    ------
    ArgumentError
        If it is something else, or of another version.
    """
    if not isinstance(text, (str, bytes)):
        raise ArgumentTypeError(
            f"this is {kind_of(text)}, not the text of {of.__name__}. Pass the text that to_json wrote."
        )
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArgumentError(f"this is not a valid {of.__name__}: {error}. Pass the text that to_json wrote.") from None
    if within is not None and isinstance(fields, dict) and isinstance(fields.get(within), dict):
        fields = fields[within]
    return from_fields(fields, of)


def from_fields(fields: Any, of: type[Spec]) -> Spec:
    """Read fields as ``to_fields`` gives them."""
    from pydantic import ValidationError

    if not isinstance(fields, dict):
        raise ArgumentError(
            f"this is {kind_of(fields)}, not the object of {of.__name__}. Pass the object that to_json wrote."
        )
    if (found := fields.get("version")) != VERSION:
        raise ArgumentError(
            f"this {of.__name__} has version={found}, this shardinit reads version={VERSION}. Make it again."
        )
    if (found := fields.get("type")) != of.__name__:
        raise ArgumentError(f"this is of type={found!r}, not {of.__name__!r}. Pass the text of a {of.__name__}.")
    if foreign := [name for name in getattr(of, "unwritten", ()) if name in fields]:
        raise ArgumentError(f"this {of.__name__} has {foreign[0]!r}, which is never written. Make it again.")
    given = {"type", "version", *getattr(of, "derived", ())}
    try:
        return _adapter(of).validate_python({k: v for k, v in fields.items() if k not in given})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ArgumentError(
            f"this {of.__name__} cannot be read: {place}: {first['msg']} ({error.error_count()} such). Make it again."
        ) from None


def json_schema(of: type) -> dict[str, Any]:
    """JSON schema of a type, for editors and other readers."""
    schema = _adapter(of).json_schema()
    known = {"type": {"const": of.__name__}, "version": {"const": VERSION}}
    derived = {name: {"readOnly": True} for name in getattr(of, "derived", ())}
    properties = {k: v for k, v in schema.get("properties", {}).items() if k not in getattr(of, "unwritten", ())}
    return {**schema, "properties": {**known, **properties, **derived}}


_adapters: dict[Any, Any] = {}


def _adapter(of: type) -> Any:
    from pydantic import TypeAdapter

    if of not in _adapters:
        _adapters[of] = TypeAdapter(of)
    return _adapters[of]
