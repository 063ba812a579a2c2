"""The provider over HTTP: a pooled client, bytes in and bytes out."""

import ssl
from functools import lru_cache

from stationmaster.providers.anthropic.batches import MessageBatches
from stationmaster.providers.base import Headers, Operation, ProviderRequest
from stationmaster.providers.headers import to_provider
from stationmaster.providers.listing import model_ids
from stationmaster.providers.upstream import Endpoint, Timeouts, UpstreamReply

DEFAULT_BASE_URL = "https://api.anthropic.com"
DEFAULT_VERSION = "2023-06-01"
"""Sent where a client names no `anthropic-version`; any that it names passes on."""

_PATHS: dict[Operation, str] = {
    "messages": "/v1/messages",
    "count_tokens": "/v1/messages/count_tokens",
}
_DEFAULTS = {
    "anthropic-version": DEFAULT_VERSION,
    "content-type": "application/json",
    "user-agent": "stationmaster",
}
_REMEMBERED = 128  # clients' sets of headers, each as large as a request's head at most
_ALL_MODELS = "/v1/models?limit=1000"


class AnthropicProvider:
    """Calls an upstream that speaks the Messages format, with this server's own key.

    `base_url` is without `/v1`. The connection pool belongs to the event loop of the first call.
    """

    operations: frozenset[Operation] = frozenset(_PATHS)

    def __init__(
        self,
        *,
        base_url: str = DEFAULT_BASE_URL,
        api_key: str,
        timeouts: Timeouts | None = None,
        name: str = "anthropic",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Raises `Invalid` where the base URL or the key cannot be one."""
        key = (("x-api-key", api_key),)
        self._endpoint = Endpoint(base_url, timeouts or Timeouts(), headers=key, tls=tls)
        self._name = name
        self.batches = MessageBatches(self._endpoint, tuple(_DEFAULTS.items()))

    @property
    def name(self) -> str:
        """Its name in the ledger."""
        return self._name

    async def send(self, request: ProviderRequest) -> UpstreamReply:
        """Start a call; see `Provider.send`.

        A connection that could not be made raises `Upstream` with code `upstream_unreachable`:
        nothing was sent, and trying again is safe.
        """
        target = _PATHS[request.operation]
        if request.query:
            target += "?" + request.query
        headers = _completed(request.headers)
        streamed = request.stream or request.operation == "count_tokens"
        return await self._endpoint.post(target, request.body, headers, streamed=streamed)

    async def models(self) -> tuple[str, ...]:
        """What the key may use; see `Listing`."""
        return await model_ids(await self._endpoint.get(_ALL_MODELS, tuple(_DEFAULTS.items())))

    async def check(self) -> None:
        """Raise `Upstream` where nobody answers. Sends no key and no model call."""
        await self._endpoint.check()

    async def aclose(self) -> None:
        """Close pooled connections. Calls that still run break. Idempotent."""
        await self._endpoint.aclose()


@lru_cache(maxsize=_REMEMBERED)
def _completed(headers: Headers) -> Headers:
    """Those that may pass, and the defaults of those that are not there."""
    passing = to_provider(headers)
    named = {name for name, _ in passing}
    return passing + tuple([item for item in _DEFAULTS.items() if item[0] not in named])
