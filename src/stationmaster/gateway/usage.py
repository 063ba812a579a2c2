"""What the provider says it served, read from the bytes as they pass.

Anthropic's stream reports usage twice: `message_start` with the input classes, `message_delta`
with cumulative figures at the end. A stream that is cut between them is estimated from above.
"""

from collections.abc import Sequence

import msgspec

from stationmaster.budgets.entry import Usage
from stationmaster.gateway.splitter import Splitter, data_of

BYTES_PER_TOKEN = 2
"""For estimates from above. English has about 4 bytes to a token, code 3, Chinese 2 to 3."""

_BLOCK_ENVELOPE = 80
"""Bytes of a `content_block_start` that say nothing; what is more is content or a tool's name."""


class _CacheCreation(msgspec.Struct):
    ephemeral_5m_input_tokens: int | None = None


class _ServerTools(msgspec.Struct):
    web_search_requests: int | None = None


class _Tokens(msgspec.Struct):
    """The `usage` object, and each of its `iterations`."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation: _CacheCreation | None = None
    server_tool_use: _ServerTools | None = None
    inference_geo: str | None = None
    speed: str | None = None
    type: str | None = None
    model: str | None = None
    iterations: list["_Tokens"] | None = None


class _Delta(msgspec.Struct):
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    signature: str | None = None
    estimated_tokens: int | None = None
    stop_reason: str | None = None


class _Message(msgspec.Struct):
    usage: _Tokens | None = None
    stop_reason: str | None = None


class _Event(msgspec.Struct):
    type: str = ""
    message: _Message | None = None
    delta: _Delta | None = None
    usage: _Tokens | None = None


_CLASSES = Usage.__struct_fields__

_event = msgspec.json.Decoder(_Event)
_message = msgspec.json.Decoder(_Message)


class Served(msgspec.Struct, frozen=True):
    """What one request used. `usage` is all of it, `parts` the same by the model that served it.

    A part's model is None for the model that was asked for. `exact` is False where some of it is
    an estimate from above. `reported` is whether the provider said anything at all.
    """

    usage: Usage
    parts: tuple[tuple[str | None, Usage], ...]
    web_searches: int = 0
    inference_geo: str | None = None
    speed: str | None = None
    stop_reason: str | None = None
    reported: bool = True
    exact: bool = True


class _Totals:
    """The largest figure seen of each kind: the stream's are cumulative, and never shrink."""

    __slots__ = (
        "_long_lived",
        "cache_read",
        "cache_write",
        "geo",
        "input",
        "iterations",
        "output",
        "searches",
        "short_write",
        "speed",
    )

    def __init__(self, *, long_lived: bool) -> None:
        self._long_lived = long_lived
        self.input = 0
        self.output = 0
        self.cache_write = 0
        self.cache_read = 0
        self.short_write: int | None = None
        self.searches = 0
        self.geo: str | None = None
        self.speed: str | None = None
        self.iterations: Sequence[_Tokens] = ()

    def take(self, told: _Tokens) -> None:
        # Most of what may be told is not, or is 0.
        if told.input_tokens and told.input_tokens > self.input:
            self.input = told.input_tokens
        if told.output_tokens and told.output_tokens > self.output:
            self.output = told.output_tokens
        if told.cache_creation_input_tokens:
            self.cache_write = max(self.cache_write, told.cache_creation_input_tokens)
        if told.cache_read_input_tokens:
            self.cache_read = max(self.cache_read, told.cache_read_input_tokens)
        if told.cache_creation is not None:
            self.short_write = max(0, told.cache_creation.ephemeral_5m_input_tokens or 0)
        if told.server_tool_use is not None:
            self.searches = max(self.searches, told.server_tool_use.web_search_requests or 0)
        self.geo = told.inference_geo or self.geo
        self.speed = told.speed or self.speed
        self.iterations = told.iterations or self.iterations

    def usage(self) -> Usage:
        """Cache writes that are not known to be of the short lifetime count as the dearer."""
        if self.short_write is not None:
            long_write = max(0, self.cache_write - self.short_write)
        else:
            long_write = self.cache_write if self._long_lived else 0
        return Usage(self.input, self.output, self.cache_write, self.cache_read, long_write)

    def parts(self) -> tuple[tuple[str | None, Usage], ...]:
        """Usage by model. Anthropic's top-level figures leave out what other models served."""
        if all(entry.type in {None, "message"} for entry in self.iterations):
            return ((None, self.usage()),)
        parts: list[tuple[str | None, Usage]] = []
        for entry in self.iterations:
            totals = _Totals(long_lived=self._long_lived)
            totals.take(entry)
            parts.append((entry.model, totals.usage()))
        counted = sum((usage for model, usage in parts if model is None), Usage())
        own = self.usage()
        missing = Usage(*(max(0, getattr(own, name) - getattr(counted, name)) for name in _CLASSES))
        return ((None, missing), *parts) if missing != Usage() else tuple(parts)

    def served(self, stop_reason: str | None, *, reported: bool, exact: bool) -> Served:
        parts: tuple[tuple[str | None, Usage], ...]
        if self.iterations:
            parts = self.parts()
            usage = sum((each for _, each in parts), Usage())
        else:
            usage = self.usage()
            parts = ((None, usage),)
        return Served(
            usage,
            parts,
            self.searches,
            self.geo,
            self.speed,
            stop_reason,
            reported=reported,
            exact=exact,
        )


class StreamScanner:
    """Reads usage out of an event stream, fed with its bytes in pieces cut anywhere.

    `long_lived` tells that the request asks for cache entries of one hour: cache writes that the
    provider does not break down then count as those.
    """

    def __init__(self, *, long_lived: bool = False) -> None:
        self._splitter = Splitter()
        self._totals = _Totals(long_lived=long_lived)
        self._content_bytes = 0
        self._pieces = 0
        self._hidden_tokens = 0
        self._final = False
        self.started = False
        self.finished = False
        self.failed = False
        self.stop_reason: str | None = None

    @property
    def between_events(self) -> bool:
        """Whether what was fed so far ends with a whole event, so that another may be put in."""
        return self._splitter.between_events

    @property
    def content_bytes(self) -> int:
        """Bytes of content that came."""
        return self._content_bytes

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes. Raises `Upstream` for an event over `MAX_EVENT_BYTES`."""
        for event in self._splitter.feed(chunk):
            self._take(event)

    def close(self) -> None:
        """The stream has ended; what ends an answer of this format is an event of its own."""

    def served(self, *, max_tokens: int) -> Served:
        """What was used, as far as is known. An estimate of output is bound by `max_tokens`.

        Where the stream was cut, output counts one token for each `BYTES_PER_TOKEN` bytes of
        content that came, or for each piece, whichever is more, and what the provider estimates
        of thinking that it does not show.
        """
        if not self._final and (self._pieces or self._content_bytes):
            came = max(self._pieces, -(-self._content_bytes // BYTES_PER_TOKEN))
            came += self._hidden_tokens
            self._totals.output = max(self._totals.output, min(came, max_tokens))
        return self._totals.served(
            self.stop_reason, reported=self.started or self._final, exact=self._final
        )

    def _take(self, event: bytes) -> None:
        data = data_of(event)
        if data is None:
            return
        try:
            decoded = _event.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            # Not for us to judge: a newer peer may say what this version cannot read.
            return
        kind = decoded.type
        if kind == "content_block_delta":  # nearly every event is one
            self._pieces += 1
            if decoded.delta is not None:
                self._count(decoded.delta)
        elif kind == "content_block_start":
            # Redacted thinking comes whole in here.
            self._pieces += 1
            self._content_bytes += max(0, len(data) - _BLOCK_ENVELOPE)
        else:
            self._apply(decoded)

    def _apply(self, event: _Event) -> None:
        match event.type:
            case "message_start":
                self.started = True
                if event.message is not None and event.message.usage is not None:
                    self._totals.take(event.message.usage)
            case "message_delta":
                self._conclude(event)
            case "message_stop":
                self.finished = True
            case "error":
                self.failed = True

    def _count(self, delta: _Delta) -> None:
        # Of thinking that is not shown, only a count comes (beta `thinking-token-count`).
        if delta.estimated_tokens:
            self._hidden_tokens += max(0, delta.estimated_tokens)
        for text in (delta.text, delta.partial_json, delta.thinking, delta.signature):
            if text:
                self._content_bytes += len(text) if text.isascii() else len(text.encode())

    def _conclude(self, event: _Event) -> None:
        if event.usage is not None:
            self._totals.take(event.usage)
            self._final = event.usage.output_tokens is not None
        if event.delta is not None:
            self.stop_reason = event.delta.stop_reason or self.stop_reason


def served_in_message(body: bytes, *, long_lived: bool = False) -> Served | None:
    """The usage of a reply that was not streamed, or None where it tells none."""
    try:
        message = _message.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if message.usage is None or message.usage.output_tokens is None:
        return None
    totals = _Totals(long_lived=long_lived)
    totals.take(message.usage)
    return totals.served(message.stop_reason, reported=True, exact=True)
