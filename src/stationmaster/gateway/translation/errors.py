"""A provider's errors in the shape of each client's format."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from stationmaster.gateway.translation.reply import Broken

_ANTHROPIC: Mapping[int, str] = MappingProxyType(
    {
        401: "authentication_error",
        402: "billing_error",
        403: "permission_error",
        404: "not_found_error",
        413: "request_too_large",
        429: "rate_limit_error",
        504: "timeout_error",
        529: "overloaded_error",
    }
)
_ANTHROPIC_TYPES = frozenset({*_ANTHROPIC.values(), "invalid_request_error", "api_error"})
_OPENAI: Mapping[int, tuple[str, str | None]] = MappingProxyType(
    {
        401: ("invalid_request_error", "invalid_api_key"),
        402: ("insufficient_quota", "insufficient_quota"),
        403: ("permission_error", None),
        404: ("invalid_request_error", "model_not_found"),
        429: ("rate_limit_error", "rate_limit_exceeded"),
    }
)
"""Type and code by status."""

TOO_LONG_CODE = "context_length_exceeded"
TOO_LONG_WORDS = "prompt is too long"
"""How Anthropic says it; Claude Code shortens the conversation when it reads these words."""


def anthropic(broken: Broken) -> dict[str, Any]:
    """Anthropic's shape, but for the request's id, which the transport knows."""
    kind = broken.kind if broken.kind in _ANTHROPIC_TYPES else _anthropic_type(broken.status)
    message = broken.message
    if broken.code == TOO_LONG_CODE and TOO_LONG_WORDS not in message.lower():
        message = f"{TOO_LONG_WORDS}: {message}"
    return {"type": "error", "error": {"type": kind, "message": message}}


def openai(broken: Broken) -> dict[str, Any]:
    """OpenAI's shape."""
    error = openai_error(broken)
    return {"error": error}


def openai_error(broken: Broken) -> dict[str, Any]:
    """The inside of OpenAI's shape."""
    client_fault = ("invalid_request_error", None)
    server_fault = ("server_error", None)
    default = client_fault if 400 <= broken.status < 500 else server_fault
    kind, code = _OPENAI.get(broken.status, default)
    if TOO_LONG_WORDS in broken.message.lower():
        code = TOO_LONG_CODE
    return {
        "message": broken.message,
        "type": kind,
        "param": None,
        "code": broken.code or code,
    }


def encoded(value: dict[str, Any]) -> bytes:
    """As the body of a reply."""
    return msgspec.json.encode(value)


def _anthropic_type(status: int) -> str:
    default = "invalid_request_error" if 400 <= status < 500 else "api_error"
    return _ANTHROPIC.get(status, default)
