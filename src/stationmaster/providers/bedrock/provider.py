"""The provider over HTTP: signs, names the model in the path, and unpacks the binary stream."""

import base64
import ssl
from urllib.parse import quote

import msgspec

from stationmaster.kernel.clock import Clock, SystemClock
from stationmaster.kernel.errors import Invalid
from stationmaster.providers.base import Headers, Operation, ProviderReply, ProviderRequest
from stationmaster.providers.bedrock.answers import ErrorAnswer, MessageStream, TokenCount
from stationmaster.providers.bedrock.signature import Credentials, Signer
from stationmaster.providers.members import read_members, reshaped
from stationmaster.providers.upstream import Endpoint, Timeouts, TranslatedReply

ANTHROPIC_VERSION = "bedrock-2023-05-31"
"""Goes into the body, which has it in place of Anthropic's header."""

_IN_THE_PATH = ("model", "stream")
_JSON_TYPE = "application/json"
_STREAM_TYPE = "text/event-stream; charset=utf-8"


class BedrockProvider:
    """Calls Bedrock's runtime API.

    The model of a request is a model's or an inference profile's id, or its ARN. The connection
    pool belongs to the event loop of the first call.
    """

    operations: frozenset[Operation] = frozenset({"messages", "count_tokens"})

    def __init__(
        self,
        *,
        region: str,
        credentials: Credentials | str,
        base_url: str | None = None,
        timeouts: Timeouts | None = None,
        name: str = "bedrock",
        clock: Clock | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`credentials` are to sign with, or a key of Bedrock's own, which is sent as it is.

        Raises `Invalid` where the URL or the key cannot be sent.
        """
        url = base_url or f"https://bedrock-runtime.{region}.amazonaws.com"
        self._signer: Signer | None = None
        key: Headers = ()
        if isinstance(credentials, str):
            key = (("authorization", f"Bearer {credentials}"),)
        else:
            self._signer = Signer(credentials, region=region, service="bedrock")
        self._endpoint = Endpoint(url, timeouts or Timeouts(), headers=key, tls=tls)
        self._clock = clock or SystemClock()
        self._name = name

    @property
    def name(self) -> str:
        """Its name in the ledger."""
        return self._name

    async def send(self, request: ProviderRequest) -> ProviderReply:
        """Start a call; see `Provider.send`. The client's query does not pass on."""
        counting = request.operation == "count_tokens"
        if counting:
            action, body = "count-tokens", _counted(_shaped(request, counting=True))
        else:
            action = "invoke-with-response-stream" if request.stream else "invoke"
            body = _shaped(request, counting=False)
        target = f"/model/{_segment(request.model)}/{action}"
        headers: Headers = (("content-type", _JSON_TYPE),)
        reply = await self._endpoint.post(
            target,
            body,
            headers + self._signed(target, headers, body) + _agent(request),
            streamed=request.stream or counting,
        )
        if reply.status >= 400:
            error = ErrorAnswer(reply.status)
            return TranslatedReply(reply, error, content_type=_JSON_TYPE, status=error.status)
        if counting:
            return TranslatedReply(reply, TokenCount(), content_type=_JSON_TYPE)
        if request.stream:
            return TranslatedReply(reply, MessageStream(), content_type=_STREAM_TYPE)
        return reply

    async def check(self) -> None:
        """Raise `Upstream` where nobody answers. Sends no key and no model call."""
        await self._endpoint.check()

    async def aclose(self) -> None:
        """Close pooled connections. Calls that still run break. Idempotent."""
        await self._endpoint.aclose()

    def _signed(self, target: str, headers: Headers, body: bytes) -> Headers:
        if self._signer is None:
            return ()
        path = self._endpoint.root + target
        signed = (("host", self._endpoint.authority), *headers)
        return self._signer.signed("POST", path, "", signed, body, at=self._clock.now())


def _shaped(request: ProviderRequest, *, counting: bool) -> bytes:
    """Anthropic's body as Bedrock wants it: the model and the beta header change places."""
    defaults: dict[str, object] = {"anthropic_version": ANTHROPIC_VERSION}
    betas = [
        beta.strip()
        for name, value in request.headers
        if name.lower() == "anthropic-beta"
        for beta in value.split(",")
        if beta.strip()
    ]
    if betas:
        defaults["anthropic_beta"] = betas
    if counting:
        defaults["max_tokens"] = 1  # it must be a whole call, though nothing is written
    return reshaped(read_members(request.body), without=_IN_THE_PATH, defaults=defaults)


def _counted(body: bytes) -> bytes:
    call = {"invokeModel": {"body": base64.b64encode(body).decode()}}
    return msgspec.json.encode({"input": call})


def _agent(request: ProviderRequest) -> Headers:
    agents = [value for name, value in request.headers if name.lower() == "user-agent"]
    return (("user-agent", agents[0] if agents else "stationmaster"),)


def _segment(model: str) -> str:
    """A model's id as one step of a path. Raises `Invalid` for one that would lead elsewhere."""
    # A server that cuts a step at its first semicolon sees only what stands before it.
    if model.partition(";")[0] in {"", ".", ".."}:
        raise Invalid("This is not the id of a model.", param="model")
    return quote(model, safe=":")
