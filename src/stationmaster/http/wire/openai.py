"""OpenAI's endpoints for model calls, and what their clients expect."""

import msgspec

from stationmaster.http.wire import anthropic_errors, openai_errors
from stationmaster.http.wire.face import Face, Refusal

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
INPUT_TOKENS = "/v1/responses/input_tokens"
EMBEDDINGS = "/v1/embeddings"

PING = b": ping\n\n"


def refuse(error: Exception, request_id: str) -> Refusal:
    """An error in OpenAI's shape."""
    headers = [(b"content-type", b"application/json"), *anthropic_errors.headers(error)]
    return openai_errors.meaning(error).status, headers, openai_errors.body(error)


def _frame(error: Exception, request_id: str) -> bytes:
    return b"data: " + openai_errors.body(error) + b"\n\n"


def _told(body: bytes, request_id: str) -> bytes:
    """A provider's refusal as it is, if it has an `error` that a client would raise.

    Anything else would be a chunk to its client, and the stream's end a clean one.
    """
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        said = None
    if not (isinstance(said, dict) and said.get("error")):
        shown = {"type": "server_error", "param": None, "code": None}
        said = {"error": {"message": "The model provider refused the call.", **shown}}
    return b"data: " + msgspec.json.encode(said) + b"\n\n"


def _event(error: Exception, request_id: str) -> bytes:
    """An error in a stream of the Responses API, where every event has a name."""
    shown = msgspec.json.decode(openai_errors.body(error))["error"]
    said = {**shown, "type": "error", "sequence_number": 0}
    return b"event: error\ndata: " + msgspec.json.encode(said) + b"\n\n"


def _told_event(body: bytes, request_id: str) -> bytes:
    return b"event: error\n" + _told(body, request_id)


FACES = {
    CHAT: Face("chat", refuse, _frame, _told, PING),
    RESPONSES: Face("responses", refuse, _event, _told_event, PING),
    INPUT_TOKENS: Face("responses", refuse, _event, _told_event, PING, counts=True),
    EMBEDDINGS: Face("embeddings", refuse, _frame, _told, PING),
}
"""By path."""
