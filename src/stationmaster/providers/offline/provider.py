"""The provider that needs no account: answers are scripted, the wire format is the real one.

Usage is a deterministic estimate (four bytes to a token) of what the request's system prompt,
messages and tools hold; a token count says the same as the message's usage. Nothing is ever
counted as cached.
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

from stationmaster.kernel.errors import Upstream
from stationmaster.providers.base import Headers, Operation, ProviderRequest
from stationmaster.providers.offline import wire
from stationmaster.providers.offline.conversation import estimate_tokens, read_conversation
from stationmaster.providers.offline.script import next_blocks

Json = dict[str, Any]

DELAY = 0.015
"""Seconds between two deltas, so that a person sees the answer being written."""

_MODEL_PREFIXES = ("claude-", "offline")
_COUNTED = ("system", "messages", "tools", "tool_choice")


class OfflineProvider:
    """Speaks the Messages format in this process. Stateless: the request decides the answer."""

    operations: frozenset[Operation] = frozenset({"messages", "count_tokens"})

    def __init__(self, *, delay: float = DELAY, name: str = "offline") -> None:
        """`delay` is in seconds, between two pieces of a stream; 0 streams at once."""
        self._delay = delay
        self._name = name

    @property
    def name(self) -> str:
        """Its name in the ledger."""
        return self._name

    async def send(self, request: ProviderRequest) -> "OfflineReply":
        """Answer. Errors are replies in Anthropic's shape, as from any provider."""
        try:
            return self._answer(request)
        except _RefusedError as refusal:
            body = wire.error(refusal.kind, refusal.message, _REQUEST_ID)
            return OfflineReply(refusal.status, _JSON, [body], 0)

    async def check(self) -> None:
        """Nothing can be down."""

    async def aclose(self) -> None:
        """Nothing is open."""

    def _answer(self, request: ProviderRequest) -> "OfflineReply":
        asked = _parse(request.body)
        model = request.model
        if not model.startswith(_MODEL_PREFIXES):
            raise _RefusedError(404, "not_found_error", f"model: {model}")
        input_tokens = _count(asked)
        if request.operation == "count_tokens":
            return OfflineReply(200, _JSON, [wire.encode({"input_tokens": input_tokens})], 0)
        max_tokens = asked.get("max_tokens")
        if not isinstance(max_tokens, int) or isinstance(max_tokens, bool) or max_tokens < 1:
            raise _RefusedError(
                400, "invalid_request_error", "max_tokens: Input should be 1 or more"
            )
        talk = read_conversation(asked, request.body)
        answer = wire.compose(
            next_blocks(talk, asked),
            digest=talk.digest,
            model=model,
            input_tokens=input_tokens,
            max_tokens=max_tokens,
        )
        if request.stream:
            frames = [wire.frame(event) for event in answer.events()]
            return OfflineReply(200, _EVENTS, frames, self._delay)
        return OfflineReply(200, _JSON, [wire.encode(answer.message())], 0)


class OfflineReply:
    """An answer that is already complete, told piece by piece."""

    def __init__(self, status: int, headers: Headers, parts: list[bytes], delay: float) -> None:
        self._status = status
        self._headers = headers
        self._parts = parts
        self._delay = delay
        self._closed = asyncio.Event()

    @property
    def status(self) -> int:
        """As a real provider would answer."""
        return self._status

    @property
    def headers(self) -> Headers:
        """As a real provider's, but for the request id."""
        return self._headers

    def arrived(self) -> bytes | None:
        """None: it is told piece by piece."""
        return None

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body. Raises `Upstream` where the reply was closed before its end."""
        for number, part in enumerate(self._parts):
            if self._closed.is_set():
                raise Upstream("The answer was closed.")
            if number and self._delay:
                await asyncio.sleep(self._delay)
            yield part

    async def aclose(self) -> None:
        """Stop. Idempotent."""
        self._closed.set()


class _RefusedError(Exception):
    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message


_REQUEST_ID = "req_offline"
_JSON: Headers = (("content-type", "application/json"),)
_EVENTS: Headers = (("content-type", "text/event-stream; charset=utf-8"),)


def _parse(raw: bytes) -> Json:
    try:
        asked = json.loads(raw)
    except (ValueError, RecursionError):
        raise _RefusedError(
            400, "invalid_request_error", "The request body is not valid JSON."
        ) from None
    messages = asked.get("messages") if isinstance(asked, dict) else None
    if not isinstance(messages, list) or not messages:
        raise _RefusedError(
            400, "invalid_request_error", "messages: at least one message is required"
        )
    return {str(name): value for name, value in asked.items()}


def _count(asked: Json) -> int:
    counted = {name: asked[name] for name in _COUNTED if name in asked}
    return max(1, estimate_tokens(json.dumps(counted, ensure_ascii=False)))
