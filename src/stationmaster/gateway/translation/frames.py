"""Events of a stream as bytes."""

from typing import Any

import msgspec

DONE = b"data: [DONE]\n\n"


def data(value: Any) -> bytes:
    """An event without a name, as chat completions have them."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def named(value: dict[str, Any]) -> bytes:
    """An event with its type as its name, as Messages and Responses have them."""
    name = str(value["type"]).encode()
    return b"event: " + name + b"\n" + data(value)
