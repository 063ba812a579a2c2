"""Errors in Anthropic's shape, for what other vendors serve of Anthropic's models."""

import msgspec

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def error_type(status: int) -> str:
    """The type that goes with a status."""
    return _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")


def error_body(status: int, message: str) -> bytes:
    """An error's body."""
    error = {"type": error_type(status), "message": message}
    return msgspec.json.encode({"type": "error", "error": error})
