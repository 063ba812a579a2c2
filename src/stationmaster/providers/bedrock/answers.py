"""Bedrock's answers, told as Anthropic's own API would."""

import base64
import binascii

import msgspec

from stationmaster.kernel.errors import Upstream
from stationmaster.providers.anthropic.errors import error_body
from stationmaster.providers.bedrock.event_stream import EventStream, Message
from stationmaster.providers.upstream import WholeBody

# What ends a stream, as the status that the same would have had before it began.
_STATUSES = {
    "internalServerException": 500,
    "modelStreamErrorException": 500,
    "modelTimeoutException": 504,
    "serviceUnavailableException": 529,
    "throttlingException": 429,
    "validationException": 400,
}

# Statuses that say less to Anthropic's clients than theirs for the same.
_TOLD_AS = {408: 504, 424: 500, 503: 529}


class _Chunk(msgspec.Struct):
    bytes: str = ""


class _Event(msgspec.Struct):
    type: str


class _Refusal(msgspec.Struct):
    message: str | None = None
    Message: str | None = None  # some of AWS's services write it so


class _Count(msgspec.Struct):
    inputTokens: int  # noqa: N815 - the wire's name


_chunk = msgspec.json.Decoder(_Chunk)
_event = msgspec.json.Decoder(_Event)
_refusal = msgspec.json.Decoder(_Refusal)
_count = msgspec.json.Decoder(_Count)


class MessageStream:
    """The binary stream, as server-sent events."""

    def __init__(self) -> None:
        self._frames = EventStream()

    def feed(self, data: bytes) -> bytes:
        """See `Translation.feed`."""
        return b"".join([_told(message) for message in self._frames.feed(data)])

    def finish(self) -> bytes:
        """See `Translation.finish`."""
        self._frames.finish()
        return b""


class TokenCount(WholeBody):
    """`{"inputTokens": 1}`, as `{"input_tokens": 1}`."""

    def told(self, body: bytes) -> bytes:
        """See `WholeBody.told`."""
        try:
            counted = _count.decode(body).inputTokens
        except (msgspec.DecodeError, ValueError):
            raise Upstream("The model provider's answer cannot be read.") from None
        return msgspec.json.encode({"input_tokens": counted})


class ErrorAnswer(WholeBody):
    """A refusal."""

    LIMIT = 1024 * 1024

    def __init__(self, status: int) -> None:
        """`status` is Bedrock's."""
        super().__init__()
        self._bedrock = status
        self.status = _TOLD_AS.get(status, status)

    def told(self, body: bytes) -> bytes:
        """See `WholeBody.told`."""
        if self._bedrock in {401, 403}:
            # Their words name the account, or repeat what was signed, a session's token included.
            return error_body(self.status, "Bedrock refused this server, or its use of the model.")
        return error_body(self.status, _words(body, f"status {self._bedrock}"))


def _told(message: Message) -> bytes:
    kind = message.headers.get(":message-type", "event")
    if kind == "exception":
        name = message.headers.get(":exception-type", "")
        return _error(_STATUSES.get(name, 500), _words(message.payload, name))
    if kind == "error":
        return _error(500, message.headers.get(":error-message", "the stream broke off"))
    if message.headers.get(":event-type") != "chunk":
        return b""
    try:
        data = base64.b64decode(_chunk.decode(message.payload).bytes, validate=True)
        name = _event.decode(data).type
    except (msgspec.DecodeError, binascii.Error, ValueError):
        raise Upstream("The model provider's event stream cannot be read.") from None
    if not name.isidentifier():
        raise Upstream("The model provider's event stream cannot be read.")
    if b"\n" in data or b"\r" in data:  # would end the line that it is told in
        data = msgspec.json.format(data, indent=-1)
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data)


def _error(status: int, words: str) -> bytes:
    return b"event: error\ndata: " + error_body(status, words) + b"\n\n"


def _words(body: bytes, otherwise: str) -> str:
    try:
        told = _refusal.decode(body)
    except (msgspec.DecodeError, ValueError):
        told = _Refusal()
    return told.message or told.Message or f"Bedrock refused the call ({otherwise})."
