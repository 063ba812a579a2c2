"""Anthropic's endpoints for model calls, and what their clients expect."""

import msgspec

from stationmaster.http.wire import anthropic_errors as errors
from stationmaster.http.wire.face import Face, Refusal

MESSAGES = "/v1/messages"
COUNT_TOKENS = "/v1/messages/count_tokens"

PING = b'event: ping\ndata: {"type": "ping"}\n\n'


class _Told(msgspec.Struct):
    type: str = "api_error"
    message: str = "The model provider refused the call."


class _Refusal(msgspec.Struct):
    error: _Told


def told(body: bytes) -> tuple[str, str]:
    """The type and message of a provider's error body."""
    try:
        told = msgspec.json.decode(body, type=_Refusal).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        told = _Told()
    return told.type, told.message


def refuse(error: Exception, request_id: str) -> Refusal:
    """An error in Anthropic's shape."""
    kind = errors.meaning(error)
    body = errors.body(kind.type, errors.message_of(error), request_id)
    headers = [(b"content-type", b"application/json"), *errors.headers(error)]
    return kind.status, headers, body


def _frame(error: Exception, request_id: str) -> bytes:
    return errors.frame(errors.meaning(error).type, errors.message_of(error), request_id)


def _told_frame(body: bytes, request_id: str) -> bytes:
    return errors.frame(*told(body), request_id)


FACES = {
    MESSAGES: Face("messages", refuse, _frame, _told_frame, PING),
    COUNT_TOKENS: Face("count_tokens", refuse, _frame, _told_frame, PING, counts=True),
}
"""By path."""
