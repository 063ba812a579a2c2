"""What differs between the wire formats: how a request is read, and how a reply tells usage."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal, Protocol

import msgspec

from stationmaster.gateway.body import CallBody
from stationmaster.gateway.messages_body import parse_messages
from stationmaster.gateway.openai_body import parse_chat, parse_embeddings, parse_responses
from stationmaster.gateway.openai_usage import ChatScanner, ResponsesScanner, served_in_reply
from stationmaster.gateway.usage import Served, StreamScanner, served_in_message
from stationmaster.kernel.errors import Invalid
from stationmaster.providers.base import Operation

PARSERS: Mapping[Operation, Callable[[bytes], CallBody]] = MappingProxyType(
    {
        "messages": parse_messages,
        "count_tokens": lambda raw: parse_messages(raw, counting=True),
        "chat": parse_chat,
        "responses": parse_responses,
        "embeddings": parse_embeddings,
    }
)
"""By operation. Each raises `Invalid` for a body that cannot be read."""


class Scanner(Protocol):
    """Reads usage out of a stream, fed with its bytes in pieces cut anywhere."""

    finished: bool
    failed: bool

    @property
    def between_events(self) -> bool:
        """Whether what was fed so far ends with a whole event, so that another may be put in."""
        ...

    @property
    def content_bytes(self) -> int:
        """Bytes of content that came."""
        ...

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes. Raises `Upstream` for an event without an end."""
        ...

    def close(self) -> None:
        """The stream has ended: `finished` is true now where that is how an answer may end."""
        ...

    def served(self, *, max_tokens: int) -> Served:
        """What was used, as far as is known."""
        ...


class Reply(Protocol):
    """Turns a provider's reply into what its client expects.

    `ignored` are members of the request that its provider has no word for, and that change nothing
    that the client could rely on.
    """

    ignored: tuple[str, ...]

    def whole(self, reply: bytes) -> bytes:
        """A successful reply that was not streamed. Raises `Upstream` for one that is none."""
        ...

    def feed(self, chunk: bytes) -> bytes:
        """The next bytes of a stream, cut anywhere; what comes out are whole events."""
        ...

    def end(self) -> bytes:
        """What is still owed at the stream's end. Raises `Upstream` where it was cut."""
        ...

    def error(self, status: int, body: bytes) -> bytes:
        """A refusal."""
        ...


def scanner(body: CallBody) -> Scanner:
    """For the stream that answers a request."""
    if body.operation == "chat":
        return ChatScanner()
    if body.operation == "responses":
        return ResponsesScanner()
    return StreamScanner(long_lived=body.long_lived)


def served_whole(body: CallBody, reply: bytes) -> Served | None:
    """The usage of a reply that was not streamed, or None where it tells none."""
    if body.operation == "messages":
        return served_in_message(reply, long_lived=body.long_lived)
    return served_in_reply(reply)


BOUND: Literal["max_completion_tokens"] = "max_completion_tokens"
"""What bounds an answer in OpenAI's chat format; older servers know `max_tokens` alone."""


def bounded_by(body: CallBody, name: str) -> CallBody:
    """A chat request whose bound has the name that its provider knows.

    Raises `Invalid` where it has bounds of both names.
    """
    if body.limit == name or body.limit not in body.members:
        return body
    if name in body.members:
        raise Invalid("max_tokens: It contradicts max_completion_tokens.", param="max_tokens")
    return parse_chat(body.renamed(body.limit, name))


def asking_for_usage(body: CallBody) -> bytes:
    """A chat request for a stream that tells its usage."""
    if "stream_options" not in body.members:
        return body.with_member("stream_options", b'{"include_usage":true}')
    options = msgspec.json.decode(body.members["stream_options"]) or {}
    options["include_usage"] = True
    return body.spliced({"stream_options": msgspec.json.encode(options)})
