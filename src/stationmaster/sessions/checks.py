"""Checks of what a request holds, each with the name of the field that is wrong."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from stationmaster.kernel.errors import Invalid, TooLarge

MAX_METADATA = 16  # pairs; with the sizes below, what the Managed Agents API allows
MAX_METADATA_KEY = 64  # characters
MAX_METADATA_VALUE = 512


def bounded(value: Any, limit: int, param: str, *, least: int = 0) -> str:
    """`value` if it is text that can be kept, of at most `limit` bytes."""
    if not isinstance(value, str):
        raise Invalid(f"{param} is not text.", param=param)
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise Invalid(f"{param} is not valid Unicode text.", param=param) from None
    if size > limit:
        raise TooLarge(f"{param} is larger than {limit} bytes.", param=param)
    if "\0" in value:
        raise Invalid(f"{param} holds a NUL character.", param=param)
    if len(value.strip()) < least:
        raise Invalid(f"{param} is empty.", param=param)
    return value


def refuse_unknown(fields: Mapping[str, Any], known: Iterable[str], at: str = "") -> None:
    """Raise `Invalid` for the first field that is not among `known`."""
    for name in fields:
        if name not in set(known):
            param = f"{at}.{name}" if at else str(name)
            raise Invalid(f"There is no field {param[:128]!r}.", code="unknown_field", param=param)


def strings(value: Any, param: str) -> Sequence[str]:
    """`value` if it is a list of texts."""
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise Invalid(f"{param} is not a list of texts.", param=param)
    return value


def patched(present: Mapping[str, str], patch: Any) -> dict[str, str]:
    """Metadata with `patch` over it: a value of None removes its key. None changes nothing."""
    if patch is None:
        return dict(present)
    if not isinstance(patch, Mapping):
        raise Invalid("metadata is not an object.", param="metadata")
    made = dict(present)
    for key, value in patch.items():
        bounded(key, MAX_METADATA_KEY * 4, "metadata")
        if value is None:
            made.pop(key, None)
            continue
        bounded(value, MAX_METADATA_VALUE * 4, "metadata")
        if len(key) > MAX_METADATA_KEY or len(value) > MAX_METADATA_VALUE:
            raise TooLarge(
                f"metadata has keys of at most {MAX_METADATA_KEY} characters and values of"
                f" at most {MAX_METADATA_VALUE}.",
                param="metadata",
            )
        made[key] = value
    if len(made) > MAX_METADATA:
        raise Invalid(f"metadata has more than {MAX_METADATA} entries.", param="metadata")
    return made


def small_json(value: Any, limit: int, param: str) -> dict[str, Any]:
    """`value` if it is a JSON object of at most `limit` bytes."""
    if not isinstance(value, dict):
        raise Invalid(f"{param} is not an object.", param=param)
    try:
        size = len(msgspec.json.encode(value))
    except (UnicodeEncodeError, TypeError, ValueError, RecursionError):
        raise Invalid(f"{param} is not JSON.", param=param) from None
    if size > limit:
        raise TooLarge(f"{param} is larger than {limit} bytes.", param=param)
    return value
