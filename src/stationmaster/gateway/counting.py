"""Counting the tokens of an input, by the provider that would get it."""

from dataclasses import dataclass, replace
from http import HTTPStatus

import msgspec

from stationmaster.gateway.attempt import check_credentials, read_whole
from stationmaster.kernel.errors import NotFound, Upstream
from stationmaster.limits.grant import UNLIMITED, Standing
from stationmaster.providers.base import Headers, Operation, Provider, ProviderRequest

ESTIMATED: Headers = (("content-type", "application/json"), ("x-stationmaster-estimated", "true"))


@dataclass(frozen=True, slots=True)
class Counted:
    """The provider's answer to a token count, errors included."""

    status: int
    headers: Headers
    body: bytes
    standing: Standing = UNLIMITED


class _InputTokens(msgspec.Struct):
    input_tokens: int


_input_tokens = msgspec.json.Decoder(_InputTokens)


async def ask_count(
    provider: Provider, model: str, raw: bytes, headers: Headers, query: str
) -> Counted:
    """What a provider answers to a count, errors included. Raises `Upstream`."""
    request = ProviderRequest(
        operation="count_tokens",
        model=model,
        body=raw,
        headers=headers,
        stream=False,
        query=query,
    )
    reply = await provider.send(request)
    try:
        check_credentials(reply.status, provider.name)
        return Counted(reply.status, reply.headers, await read_whole(reply))
    finally:
        await reply.aclose()


def told(operation: Operation, tokens: int) -> bytes:
    """The body that tells a count in an operation's words."""
    said: dict[str, object] = {"input_tokens": tokens}
    if operation == "responses":
        said["object"] = "response.input_tokens"
    return msgspec.json.encode(said)


def in_openais_words(counted: Counted) -> Counted:
    """A count as OpenAI tells it.

    Raises `Upstream` where the provider did not count: its refusal is in other words.
    """
    try:
        if counted.status == HTTPStatus.OK:
            tokens = max(0, _input_tokens.decode(counted.body).input_tokens)
            return replace(counted, body=told("responses", tokens))
    except msgspec.DecodeError:
        pass
    raise Upstream("The model provider did not count the tokens.", status=counted.status)


async def exact_count(
    provider: Provider, model: str, raw: bytes, headers: Headers, query: str
) -> int | None:
    """The exact count, for a hold. None where the provider does not tell."""
    try:
        counted = await ask_count(provider, model, raw, headers, query)
        if counted.status != HTTPStatus.OK:
            return None
        return max(0, _input_tokens.decode(counted.body).input_tokens)
    except (Upstream, NotFound, msgspec.DecodeError):
        return None
