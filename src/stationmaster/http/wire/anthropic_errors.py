"""Errors in Anthropic's shape: `{"type": "error", "error": {"type", "message"}, "request_id"}`."""

import math
from dataclasses import dataclass

import msgspec

from stationmaster.idempotency import KeyReused
from stationmaster.kernel import errors

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Meaning:
    """How an error's class shows: its status and its type."""

    status: int
    type: str


# In the order of asking: the first class that an error is of decides.
_MEANINGS: tuple[tuple[type[errors.StationmasterError], Meaning], ...] = (
    (errors.TooLarge, Meaning(413, "request_too_large")),
    (KeyReused, Meaning(422, "invalid_request_error")),
    (errors.Invalid, Meaning(400, "invalid_request_error")),
    (errors.Unauthenticated, Meaning(401, "authentication_error")),
    (errors.Denied, Meaning(403, "permission_error")),
    (errors.NotFound, Meaning(404, "not_found_error")),
    (errors.NotAsExpected, Meaning(412, "invalid_request_error")),
    (errors.Conflict, Meaning(409, "invalid_request_error")),
    (errors.BudgetExceeded, Meaning(402, "billing_error")),
    (errors.Exhausted, Meaning(429, "rate_limit_error")),
    (errors.Unavailable, Meaning(503, "api_error")),
    (errors.UpstreamTimeout, Meaning(504, "timeout_error")),
    (errors.Upstream, Meaning(502, "api_error")),
)
_UNKNOWN = Meaning(500, "api_error")

_RETRY_AFTER = 5
"""Seconds, where a status wants the header and nobody knows better."""

# Retrying these changes nothing, though the official clients would for their statuses.
_FINAL_CODES = frozenset({"upstream_credentials", "exceeds_rate_limit"})
_FINAL = (errors.BudgetExceeded, errors.Conflict)


def meaning(error: Exception) -> Meaning:
    """The status and type of an error; 500 for one that is not ours."""
    return next((shown for kind, shown in _MEANINGS if isinstance(error, kind)), _UNKNOWN)


def body(kind: str, message: str, request_id: str | None) -> bytes:
    """An error's JSON. Without an id where it answers no request of its own."""
    return msgspec.json.encode(
        {
            "type": "error",
            "error": {"type": kind, "message": message},
            "request_id": request_id,
        }
    )


def message_of(error: Exception) -> str:
    """What to tell of an error: of one that is not ours, nothing."""
    if isinstance(error, errors.StationmasterError):
        return error.message
    return "Something went wrong in this server."


def headers(error: Exception) -> Headers:
    """The headers that tell a client whether and when to try again."""
    found: Headers = []
    status = meaning(error).status
    after = getattr(error, "retry_after", None)
    if after is None and status in {429, 503}:
        after = _RETRY_AFTER
    final = isinstance(error, _FINAL) or getattr(error, "error_code", "") in _FINAL_CODES
    if final:
        found.append((b"x-should-retry", b"false"))
    elif after is not None:
        found.append((b"retry-after", b"%d" % max(0, math.ceil(after))))
    return found


def frame(kind: str, message: str, request_id: str) -> bytes:
    """An error inside a stream that has begun with a 200."""
    return b"event: error\ndata: " + body(kind, message, request_id) + b"\n\n"
