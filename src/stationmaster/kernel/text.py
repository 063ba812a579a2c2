"""Text from outside that is not text."""

from typing import Any

import msgspec


def scrub(value: Any) -> Any:
    """Return JSON-like `value` with what UTF-8 cannot carry (lone surrogates) replaced by `?`."""
    try:
        msgspec.json.encode(value)
    except UnicodeEncodeError:
        return _scrub(value)
    return value


def _scrub(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_scrub(key): _scrub(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_scrub(item) for item in value]
    return value
