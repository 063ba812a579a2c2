"""What an OpenAI-shaped provider says it served, read from the bytes as they pass.

A chat stream tells its usage in one chunk near its end, where it was asked to; then comes
`[DONE]`. What is cut before, or tells nothing, is estimated from above.
"""

import msgspec

from stationmaster.budgets.entry import Usage
from stationmaster.gateway.splitter import Splitter, data_of
from stationmaster.gateway.usage import BYTES_PER_TOKEN, Served

DONE = b"[DONE]"

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_EMPTY_DELTA = 10
"""Bytes of a delta that say nothing, at least."""


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _Tokens(msgspec.Struct):
    """`usage` of chat completions, of embeddings and of responses: each names its own members."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _PromptDetails | None = None

    def usage(self) -> Usage:
        """In our classes: theirs count what came from a cache, or went there, twice."""
        prompt = max(0, self.prompt_tokens or self.input_tokens or 0)
        details = self.prompt_tokens_details or self.input_tokens_details or _PromptDetails()
        read = min(prompt, max(0, details.cached_tokens or 0))
        written = min(prompt - read, max(0, details.cache_write_tokens or 0))
        output = max(0, self.completion_tokens or self.output_tokens or 0)
        return Usage(prompt - read - written, output, written, read)


class _Choice(msgspec.Struct):
    delta: msgspec.Raw = msgspec.Raw()
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Tokens | None = None
    error: msgspec.Raw = msgspec.Raw()
    service_tier: str | None = None


class _Response(msgspec.Struct):
    usage: _Tokens | None = None
    status: str | None = None
    service_tier: str | None = None


class _ResponseEvent(msgspec.Struct):
    type: str = ""
    delta: msgspec.Raw = msgspec.Raw()
    response: _Response | None = None


class _Whole(msgspec.Struct):
    usage: _Tokens | None = None
    choices: list[_Choice] = []
    status: str | None = None
    service_tier: str | None = None


_chunk = msgspec.json.Decoder(_Chunk)
_response_event = msgspec.json.Decoder(_ResponseEvent)
_whole = msgspec.json.Decoder(_Whole)


class _Scanner:
    """What both streams have in common."""

    def __init__(self) -> None:
        self._splitter = Splitter()
        self._usage: Usage | None = None
        self._pieces = 0
        self._tier: str | None = None
        self.content_bytes = 0
        self.finished = False
        self.failed = False
        self.stop_reason: str | None = None

    @property
    def between_events(self) -> bool:
        """Whether what was fed so far ends with a whole event."""
        return self._splitter.between_events

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes. Raises `Upstream` for an event without an end."""
        for event in self._splitter.feed(chunk):
            if (data := data_of(event)) is not None:
                self._take(data.strip())

    def served(self, *, max_tokens: int) -> Served:
        """What was used, as far as is known; not `reported` where the provider did not say."""
        if self._usage is not None:
            return _served(self._usage, self._tier, self.stop_reason)
        came = max(self._pieces, -(-self.content_bytes // BYTES_PER_TOKEN))
        usage = Usage(output_tokens=min(came, max_tokens))
        return Served(usage, ((None, usage),), reported=False, exact=False)

    def _count(self, delta: bytes) -> None:
        self._pieces += 1
        self.content_bytes += max(0, len(delta) - _EMPTY_DELTA)

    def _take(self, data: bytes) -> None:
        raise NotImplementedError


class ChatScanner(_Scanner):
    """Reads usage out of a stream of chat completion chunks, fed with its bytes in pieces."""

    def close(self) -> None:
        """The stream has ended. Some servers leave out `[DONE]` after the last choice's end.

        And some leave out the empty line after their last event: what can be read of it counts.
        """
        if (data := data_of(self._splitter.rest)) is not None:
            self._take(data.strip())
        self.finished = self.finished or self.stop_reason is not None

    def _take(self, data: bytes) -> None:
        if data == DONE:
            self.finished = True
            return
        try:
            chunk = _chunk.decode(data)
        except _UNREADABLE:
            return  # not for us to judge
        if bytes(chunk.error) not in {b"", b"null"}:
            self.failed = True
        if chunk.usage is not None:
            self._usage = chunk.usage.usage()
        self._tier = chunk.service_tier or self._tier
        for choice in chunk.choices:
            self._count(bytes(choice.delta))
            self.stop_reason = choice.finish_reason or self.stop_reason


class ResponsesScanner(_Scanner):
    """Reads usage out of a stream of the Responses API."""

    def close(self) -> None:
        """The stream has ended; what ends an answer is an event of its own."""

    def _take(self, data: bytes) -> None:
        try:
            event = _response_event.decode(data)
        except _UNREADABLE:
            return
        if event.type.endswith(".delta"):
            self._count(bytes(event.delta))
        if event.type in {"response.completed", "response.incomplete", "response.failed"}:
            self.finished = True
            if event.response is not None:
                self.stop_reason = event.response.status
                self._tier = event.response.service_tier
                if event.response.usage is not None:
                    self._usage = event.response.usage.usage()
        elif event.type == "error":
            self.failed = True


def served_in_reply(body: bytes) -> Served | None:
    """The usage of a reply that was not streamed, or None where it tells none."""
    try:
        whole = _whole.decode(body)
    except _UNREADABLE:
        return None
    if whole.usage is None:
        return None
    reason = whole.choices[0].finish_reason if whole.choices else whole.status
    return _served(whole.usage.usage(), whole.service_tier, reason)


def _served(usage: Usage, tier: str | None, stop_reason: str | None) -> Served:
    return Served(usage, ((None, usage),), speed=tier, stop_reason=stop_reason)


class UsageFilter:
    """Takes out of a chat stream the chunk of usage that the client did not ask for."""

    ignored: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._splitter = Splitter()

    def feed(self, chunk: bytes) -> bytes:
        """The stream's next bytes, without it."""
        return b"".join(
            event for event in self._splitter.feed(chunk, whole=True) if not _only_usage(event)
        )

    def end(self) -> bytes:
        """What came without the empty line that ends an event, as some servers' `[DONE]` does."""
        rest = self._splitter.rest
        return b"" if _only_usage(rest) else rest

    def whole(self, reply: bytes) -> bytes:
        """As it is."""
        return reply

    def error(self, status: int, body: bytes) -> bytes:
        """As it is."""
        return body


def _only_usage(event: bytes) -> bool:
    data = data_of(event) if b'"usage"' in event else None
    if data is None:
        return False
    try:
        chunk = _chunk.decode(data)
    except _UNREADABLE:
        return False
    return not chunk.choices and chunk.usage is not None
