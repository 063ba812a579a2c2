"""The provider under test, and what it is asked."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from stationmaster.providers.base import Operation, Provider, ProviderReply, ProviderRequest

Json = dict[str, Any]

ENDLESS = "endless"

STREAMING: tuple[Operation, ...] = ("messages", "chat")
"""The operations that can be streamed and are checked for it, the preferred first."""


async def _nothing_to_see() -> None:
    """For a provider without an upstream whose closing could be seen."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A provider under test.

    `unknown_model` is one that it does not have. `upstream_closed` returns when the upstream has
    seen its client go, and raises or hangs where it does not. `exact_counts` tells that a token
    count equals the message's usage.
    """

    provider: Provider
    model: str = "claude-haiku-5-5"
    unknown_model: str = "no-such-model"
    upstream_closed: Callable[[], Awaitable[None]] = _nothing_to_see
    exact_counts: bool = False

    @property
    def streaming(self) -> Operation:
        """An operation of the provider that can be streamed."""
        return next(each for each in STREAMING if each in self.provider.operations)

    def request(
        self,
        word: str = "signal",
        *,
        stream: bool = False,
        operation: Operation | None = None,
        model: str | None = None,
        **members: object,
    ) -> ProviderRequest:
        """A call that asks for `word`, in a format that the provider takes."""
        operation = operation or self.streaming
        model = model or self.model
        prompt = f"Say {word}."
        body: Json = {"model": model}
        if operation in {"embeddings", "responses"}:
            body["input"] = prompt
        else:
            body["messages"] = [{"role": "user", "content": prompt}]
        if operation in {"messages", "chat"}:
            body["max_tokens"] = 1024
        if operation in {"messages", "chat", "responses"}:
            body["stream"] = stream
        if operation == "chat" and stream:
            body["stream_options"] = {"include_usage": True}
        headers = [("content-type", "application/json")]
        if operation in {"messages", "count_tokens"}:
            headers.append(("anthropic-version", "2023-06-01"))
        return ProviderRequest(
            operation=operation,
            model=model,
            body=json.dumps(body | members).encode(),
            headers=tuple(headers),
            stream=stream,
        )

    async def asked(self, request: ProviderRequest) -> bytes:
        """The whole body of the answer."""
        return await whole(await self.provider.send(request))


async def whole(reply: ProviderReply) -> bytes:
    """The body of a reply, which is then closed."""
    try:
        return b"".join([chunk async for chunk in reply.chunks()])
    finally:
        await reply.aclose()
