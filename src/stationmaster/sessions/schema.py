"""Whether a JSON schema is one, as far as can be told without an instance."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from stationmaster.kernel.errors import Invalid, TooLarge

MAX_SCHEMA_BYTES = 100_000
MAX_DEPTH = 32
TYPES = {"array", "boolean", "integer", "null", "number", "object", "string"}

_OBJECTS_OF_SCHEMAS = ("properties", "patternProperties", "$defs", "definitions")
_LISTS_OF_SCHEMAS = ("allOf", "anyOf", "oneOf", "prefixItems")
_SCHEMAS = ("additionalProperties", "contains", "else", "if", "items", "not", "then")


def check_schema(schema: Any, param: str) -> dict[str, Any]:
    """`schema` if it can describe an object. Raises `Invalid` and `TooLarge` with `param`."""
    if not isinstance(schema, Mapping):
        raise Invalid(f"{param} is not a JSON schema.", code="invalid_schema", param=param)
    try:
        msgspec.json.encode(schema)
        # As the agent is given it: what is not ASCII is longer there.
        size = len(json.dumps(schema))
    except (UnicodeEncodeError, TypeError, ValueError, RecursionError):
        raise Invalid(f"{param} is not JSON.", code="invalid_schema", param=param) from None
    if size > MAX_SCHEMA_BYTES:
        raise TooLarge(f"{param} is larger than {MAX_SCHEMA_BYTES} bytes.", param=param)
    if schema.get("type") != "object":
        raise Invalid(f"{param}.type must be object.", code="invalid_schema", param=param)
    _check(schema, param, 0)
    return dict(schema)


def _check(schema: Any, at: str, depth: int) -> None:
    if isinstance(schema, bool):
        return
    if not isinstance(schema, Mapping) or depth > MAX_DEPTH:
        raise _wrong(at)
    _check_words(schema, at)
    for name, inner in _inner(schema, at):
        _check(inner, f"{at}.{name}", depth + 1)


def _check_words(schema: Mapping[str, Any], at: str) -> None:
    types = schema.get("type", [])
    for name in types if isinstance(types, list) else [types]:
        if not isinstance(name, str) or name not in TYPES:
            raise _wrong(f"{at}.type")
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(each, str) for each in required):
        raise _wrong(f"{at}.required")
    if not isinstance(schema.get("enum", []), list):
        raise _wrong(f"{at}.enum")


def _inner(schema: Mapping[str, Any], at: str) -> Iterator[tuple[str, Any]]:
    for name in _OBJECTS_OF_SCHEMAS:
        found = schema.get(name, {})
        if not isinstance(found, Mapping):
            raise _wrong(f"{at}.{name}")
        yield from ((f"{name}.{key}", each) for key, each in found.items())
    for name in _LISTS_OF_SCHEMAS:
        found = schema.get(name, [])
        if not isinstance(found, list):
            raise _wrong(f"{at}.{name}")
        yield from ((name, each) for each in found)
    for name in _SCHEMAS:
        if name in schema:
            yield name, schema[name]


def _wrong(at: str) -> Invalid:
    return Invalid(f"{at[:200]} is not a JSON schema.", code="invalid_schema", param=at[:200])
