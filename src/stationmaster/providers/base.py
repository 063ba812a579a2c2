"""What a model provider is to the gateway.

A provider speaks one wire format or several: bytes in, bytes out, unknown fields intact. It
knows nothing of keys, budgets or ledgers; the gateway is its only caller.
"""

from collections.abc import AsyncGenerator
from typing import Literal, Protocol

import msgspec

Headers = tuple[tuple[str, str], ...]

Operation = Literal["messages", "count_tokens", "chat", "embeddings", "responses"]
"""A wire format: Anthropic's first two, then OpenAI's."""


class ProviderRequest(msgspec.Struct, frozen=True):
    """One call. `headers` are those of the client that may pass (never its credentials).

    `query` is the client's query string without its question mark, such as `beta=true`.
    """

    operation: Operation
    model: str
    body: bytes
    headers: Headers
    stream: bool
    query: str = ""


class ProviderReply(Protocol):
    """An answer that has begun: the status line and headers are known, the body is not.

    `headers` are those that may pass to the client (content-type, request-id, retry-after,
    x-should-retry, anthropic-ratelimit-*, unknown vendor headers; never hop-by-hop, cookies,
    content-length or content-encoding).
    """

    @property
    def status(self) -> int:
        """The provider's HTTP status, errors (429, 529 …) included."""
        ...

    @property
    def headers(self) -> Headers:
        """What may pass on to the client."""
        ...

    def arrived(self) -> bytes | None:
        """The whole body, decompressed, where it has come already; once, in place of `chunks`.

        None where it has not: then only `chunks` tells it. Raises as `chunks`.
        """
        ...

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it arrives, decompressed, byte for byte. Iterated once.

        Raises `Upstream` if the connection breaks before the body's end, `UpstreamTimeout` after
        the inactivity time.
        """
        ...

    async def aclose(self) -> None:
        """Give up the rest and close the upstream call at once. Idempotent.

        A fully read reply returns its connection to the pool instead.
        """
        ...


class Provider(Protocol):
    """A source of model answers."""

    @property
    def name(self) -> str:
        """Its name in the ledger, such as `anthropic` or `offline`."""
        ...

    @property
    def operations(self) -> frozenset[Operation]:
        """The wire formats that it takes, and answers in."""
        ...

    async def send(self, request: ProviderRequest) -> ProviderReply:
        """Start a call and return once its head has arrived.

        Raises `Upstream` (cannot connect, broken head) and `UpstreamTimeout` (connect or first
        byte). An HTTP error status is a reply, not an exception. If cancelled, the upstream call
        is closed.
        """
        ...

    async def check(self) -> None:
        """Raise `Upstream` where it plainly cannot serve now. Costs nothing."""
        ...

    async def aclose(self) -> None:
        """Close pooled connections."""
        ...


class Listing(Protocol):
    """A provider that can tell which models it serves."""

    async def models(self) -> tuple[str, ...]:
        """Their names, in the provider's order. Raises `Upstream`."""
        ...
