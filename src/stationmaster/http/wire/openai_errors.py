"""Errors in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`."""

from dataclasses import dataclass

import msgspec

from stationmaster.http.wire import anthropic_errors
from stationmaster.idempotency import KeyReused
from stationmaster.kernel import errors


@dataclass(frozen=True, slots=True)
class Meaning:
    """How an error's class shows: its status, its type, and its code where ours is not wanted."""

    status: int
    type: str
    code: str | None = None


# In the order of asking: the first class that an error is of decides.
_MEANINGS: tuple[tuple[type[errors.StationmasterError], Meaning], ...] = (
    (errors.TooLarge, Meaning(413, "invalid_request_error")),
    (KeyReused, Meaning(422, "invalid_request_error")),
    (errors.Invalid, Meaning(400, "invalid_request_error")),
    (errors.Unauthenticated, Meaning(401, "invalid_request_error", "invalid_api_key")),
    (errors.Denied, Meaning(403, "invalid_request_error")),
    (errors.NotFound, Meaning(404, "invalid_request_error")),
    (errors.Conflict, Meaning(409, "invalid_request_error")),
    (errors.BudgetExceeded, Meaning(429, "insufficient_quota", "insufficient_quota")),
    (errors.Exhausted, Meaning(429, "rate_limit_error", "rate_limit_exceeded")),
    (errors.Unavailable, Meaning(503, "server_error")),
    (errors.UpstreamTimeout, Meaning(504, "server_error")),
    (errors.Upstream, Meaning(502, "server_error")),
)
_UNKNOWN = Meaning(500, "server_error", "internal_error")

_NO_MODEL = frozenset({"unknown_model", "unknown_price"})


def meaning(error: Exception) -> Meaning:
    """The status, type and code of an error; 500 for one that is not ours."""
    return next((shown for kind, shown in _MEANINGS if isinstance(error, kind)), _UNKNOWN)


def body(error: Exception) -> bytes:
    """An error's JSON."""
    shown = meaning(error)
    code = shown.code or getattr(error, "error_code", None)
    return msgspec.json.encode(
        {
            "error": {
                "message": anthropic_errors.message_of(error),
                "type": shown.type,
                "param": getattr(error, "param", None),
                "code": "model_not_found" if code in _NO_MODEL else code,
            }
        }
    )
