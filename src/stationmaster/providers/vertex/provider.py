"""The provider over HTTP: the model goes into the path; what comes back is Anthropic's own."""

import ssl
from urllib.parse import quote

from stationmaster.kernel.errors import Invalid
from stationmaster.providers.base import Operation, ProviderReply, ProviderRequest
from stationmaster.providers.headers import to_provider
from stationmaster.providers.members import read_members, reshaped
from stationmaster.providers.upstream import Endpoint, Timeouts, TranslatedReply
from stationmaster.providers.vertex.answers import ErrorAnswer
from stationmaster.providers.vertex.token import Tokens

ANTHROPIC_VERSION = "vertex-2023-10-16"
"""Goes into the body, which has it in place of Anthropic's header."""

_SHARED_REGIONS = {
    "global": "https://aiplatform.googleapis.com/v1",
    "us": "https://aiplatform.us.rep.googleapis.com/v1",
    "eu": "https://aiplatform.eu.rep.googleapis.com/v1",
}
_DEFAULTS = (("content-type", "application/json"), ("user-agent", "stationmaster"))


class VertexProvider:
    """Calls the raw prediction API, where Anthropic's models take their own format.

    The connection pool belongs to the event loop of the first call.
    """

    operations: frozenset[Operation] = frozenset({"messages", "count_tokens"})

    def __init__(
        self,
        *,
        project: str,
        region: str,
        tokens: Tokens,
        base_url: str | None = None,
        timeouts: Timeouts | None = None,
        name: str = "vertex",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`region` may be `global`, `us` or `eu`. `base_url` is with `/v1`.

        Closes `tokens` with itself.
        Raises `Invalid` where the URL cannot be sent.
        """
        regional = f"https://{region}-aiplatform.googleapis.com/v1"
        url = base_url or _SHARED_REGIONS.get(region, regional)
        self._endpoint = Endpoint(url, timeouts or Timeouts(), tls=tls)
        self._models = (
            f"/projects/{_segment(project)}/locations/{_segment(region)}"
            "/publishers/anthropic/models/"
        )
        self._tokens = tokens
        self._name = name

    @property
    def name(self) -> str:
        """Its name in the ledger."""
        return self._name

    async def send(self, request: ProviderRequest) -> ProviderReply:
        """Start a call; see `Provider.send`. The client's query does not pass on."""
        members = read_members(request.body)
        if request.operation == "count_tokens":
            target = "count-tokens:rawPredict"
        else:
            verb = "streamRawPredict" if request.stream else "rawPredict"
            target = f"{_segment(request.model)}:{verb}"
            members.pop("model", None)
        body = reshaped(members, defaults={"anthropic_version": ANTHROPIC_VERSION})
        passing = to_provider(request.headers)
        named = {name for name, _ in passing}
        headers = passing + tuple([item for item in _DEFAULTS if item[0] not in named])
        token = await self._tokens.token()
        reply = await self._endpoint.post(
            self._models + target,
            body,
            (*headers, ("authorization", f"Bearer {token}")),
            streamed=request.stream or request.operation == "count_tokens",
        )
        if reply.status == 401:
            self._tokens.refused(token)
        if reply.status >= 400:
            error = ErrorAnswer(reply.status)
            kind = "application/json"
            return TranslatedReply(reply, error, content_type=kind, status=error.status)
        return reply

    async def check(self) -> None:
        """Raise `Upstream` where nobody answers. Sends no token and no model call."""
        await self._endpoint.check()

    async def aclose(self) -> None:
        """Close pooled connections. Calls that still run break. Idempotent."""
        await self._endpoint.aclose()
        await self._tokens.aclose()


def _segment(name: str) -> str:
    """A name as one step of a path. Raises `Invalid` for one that would lead elsewhere."""
    if name.partition(";")[0] in {"", ".", ".."}:
        raise Invalid("This is not the name of a model, project or region.", param="model")
    return quote(name, safe="@")
