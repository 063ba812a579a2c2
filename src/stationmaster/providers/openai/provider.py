"""The provider over HTTP: bytes in and bytes out, with this server's own key."""

import ssl
from typing import Literal
from urllib.parse import quote, urlencode

from stationmaster.kernel.errors import Invalid
from stationmaster.providers.base import Headers, Operation, ProviderRequest
from stationmaster.providers.listing import model_ids
from stationmaster.providers.openai.batches import FileBatches
from stationmaster.providers.upstream import Endpoint, Timeouts, UpstreamReply

MaxTokensField = Literal["max_tokens", "max_completion_tokens"]

DEFAULT_BASE_URL = "https://api.openai.com/v1"
CHAT_AND_EMBEDDINGS: frozenset[Operation] = frozenset({"chat", "embeddings"})

_PATHS: dict[Operation, str] = {
    "chat": "/chat/completions",
    "embeddings": "/embeddings",
    "responses": "/responses",
}
# Of a client's headers, with what is sent where it has none. Not its `openai-organization` or
# `-project`: they choose who pays.
_PASSING = (
    ("accept", ""),
    ("content-type", "application/json"),
    ("openai-beta", ""),
    ("user-agent", "stationmaster"),
)


class OpenAIProvider:
    """Calls an upstream that speaks OpenAI's format.

    `base_url` is what OpenAI's clients call so: with `/v1`. The connection pool belongs to the
    event loop of the first call.
    """

    def __init__(
        self,
        *,
        base_url: str = DEFAULT_BASE_URL,
        headers: Headers = (),
        operations: frozenset[Operation] = CHAT_AND_EMBEDDINGS,
        api_version: str | None = None,
        deployments: bool = False,
        max_tokens_field: MaxTokensField | None = None,
        timeouts: Timeouts | None = None,
        name: str = "openai",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`headers` go with every call: the key, and what the upstream wants besides.

        `api_version` is sent as the query `api-version`. With `deployments` the model is named in
        the path (`/deployments/MODEL/chat/completions`), as Azure has it. `max_tokens_field` is
        the only name that it knows for an answer's bound, None where it knows both. Raises
        `Invalid` where the base URL or a header cannot be sent.
        """
        self._endpoint = Endpoint(base_url, timeouts or Timeouts(), headers=headers, tls=tls)
        fixed = {name for name, _ in headers}
        self._passing = tuple([item for item in _PASSING if item[0] not in fixed])
        self._query = "?" + urlencode({"api-version": api_version}) if api_version else ""
        self._deployments = deployments
        self._name = name
        self.operations = operations
        self.max_tokens_field = max_tokens_field
        batches = FileBatches(self._endpoint, self._query, operations)
        self.batches = None if deployments else batches  # its paths have other names there

    @property
    def name(self) -> str:
        """Its name in the ledger."""
        return self._name

    async def send(self, request: ProviderRequest) -> UpstreamReply:
        """Start a call; see `Provider.send`. The client's query does not pass on."""
        path = _PATHS[request.operation]
        if self._deployments:
            path = f"/deployments/{_segment(request.model)}{path}"
        client = {name.lower(): value for name, value in request.headers}
        headers = tuple(
            [
                (name, client.get(name) or default)
                for name, default in self._passing
                if name in client or default
            ]
        )
        return await self._endpoint.post(
            path + self._query, request.body, headers, streamed=request.stream
        )

    async def models(self) -> tuple[str, ...]:
        """What the upstream serves; see `Listing`."""
        return await model_ids(await self._endpoint.get("/models" + self._query))

    async def check(self) -> None:
        """Raise `Upstream` where nobody answers. Sends no key and no model call."""
        await self._endpoint.check()

    async def aclose(self) -> None:
        """Close pooled connections. Calls that still run break. Idempotent."""
        await self._endpoint.aclose()


def _segment(model: str) -> str:
    """A model's name as one step of a path. Raises `Invalid` for one that would lead elsewhere."""
    if model in {"", ".", ".."}:
        raise Invalid("This is not the name of a model.", param="model")
    return quote(model, safe="")
