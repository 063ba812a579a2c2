"""JSON Schema as Anthropic's structured output takes it.

What it does not know is told to the model in words, as Anthropic's own client does: the answer is
then likely to keep to it, where before it was bound to.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from stationmaster.kernel.errors import Invalid

_FORMATS = frozenset(
    {
        "date",
        "date-time",
        "duration",
        "email",
        "hostname",
        "ipv4",
        "ipv6",
        "time",
        "uri",
        "uuid",
    }
)
_TYPES = frozenset({"object", "array", "string", "integer", "number", "boolean", "null"})
_WORDS = ("title", "description")
_UNIONS = {"anyOf": "anyOf", "oneOf": "anyOf", "allOf": "allOf"}


def strict(schema: Mapping[str, Any], at: str) -> dict[str, Any]:
    """The schema with every object closed. Raises `Invalid`, naming `at`, where it cannot be."""
    left = dict(schema)
    made: dict[str, Any] = {}
    for group in ("$defs", "definitions"):
        if group in left:
            made[group] = _each(left.pop(group), at, group)
    if "$ref" in left:
        made["$ref"] = left["$ref"]
        return made
    _take_kind(left, made, at)
    for word in _WORDS:
        if word in left:
            made[word] = left.pop(word)
    _take_inside(left, made, at)
    left.pop("$schema", None)
    if left:
        made["description"] = _in_words(made.get("description"), left)
    return made


def _take_kind(left: dict[str, Any], made: dict[str, Any], at: str) -> None:
    for literal in ("enum", "const"):
        if literal in left:
            made[literal] = left.pop(literal)
    union = next((name for name in _UNIONS if name in left), None)
    if union is not None:
        variants = left.pop(union)
        if not isinstance(variants, list):
            raise _wrong(at, f"{union} must be a list")
        made[_UNIONS[union]] = [strict(_object(each, at), at) for each in variants]
    kind = left.pop("type", None)
    if isinstance(kind, list):
        made["type"] = [_type(each, at) for each in kind]
    elif kind is not None:
        made["type"] = _type(kind, at)
    elif union is None and not made.keys() & {"enum", "const"}:
        raise _wrong(at, "every part of it needs a type, anyOf, oneOf, allOf, enum or const")


def _take_inside(left: dict[str, Any], made: dict[str, Any], at: str) -> None:
    kinds = made.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if "object" in kinds:
        made["properties"] = _each(left.pop("properties", {}), at, "properties")
        # Open objects are not to be had: what a schema wants beside its properties cannot come.
        if left.pop("additionalProperties", False) not in (False, True):
            raise _wrong(at, "objects with any names cannot be asked for (additionalProperties)")
        made["additionalProperties"] = False
        if "required" in left:
            made["required"] = left.pop("required")
    if "array" in kinds:
        if "items" in left:
            made["items"] = strict(_object(left.pop("items"), at), at)
        if left.get("minItems") in (0, 1):
            made["minItems"] = left.pop("minItems")
    if "string" in kinds and isinstance(left.get("format"), str) and left["format"] in _FORMATS:
        made["format"] = left.pop("format")


def _each(group: object, at: str, name: str) -> dict[str, Any]:
    if not isinstance(group, dict):
        raise _wrong(at, f"{name} must be an object")
    return {key: strict(_object(each, at), at) for key, each in group.items()}


def _object(value: object, at: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(at, "every schema in it must be an object")
    return value


def _type(value: object, at: str) -> str:
    if not isinstance(value, str) or value not in _TYPES:
        raise _wrong(at, "it names a type that JSON does not have")
    return value


def _in_words(description: object, left: dict[str, Any]) -> str:
    told = ", ".join(f"{key}: {msgspec.json.encode(each).decode()}" for key, each in left.items())
    return f"{description}\n\n{{{told}}}" if isinstance(description, str) else f"{{{told}}}"


def _wrong(at: str, why: str) -> Invalid:
    return Invalid(f"{at}: The schema cannot be used: {why}.", param=at)
