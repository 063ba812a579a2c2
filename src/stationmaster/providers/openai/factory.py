"""The `openai` kind, as an operator configures it."""

from collections.abc import Mapping
from typing import Literal

import msgspec

from stationmaster.kernel.errors import Invalid
from stationmaster.providers.base import Headers, Operation
from stationmaster.providers.openai.provider import (
    DEFAULT_BASE_URL,
    MaxTokensField,
    OpenAIProvider,
)
from stationmaster.providers.options import HttpOptions, read_options
from stationmaster.providers.upstream import Timeouts

# Written by the connection itself, for the request that it sends.
_NOT_TO_BE_SET = frozenset(
    {"accept-encoding", "connection", "content-length", "expect", "host", "transfer-encoding"}
)


class OpenAIOptions(HttpOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`auth` says which header takes the key: OpenAI's `authorization` or Azure's `api-key`."""

    base_url: str = DEFAULT_BASE_URL
    api_key: str | None = None
    auth: Literal["bearer", "api-key"] = "bearer"
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    operations: set[Literal["chat", "embeddings", "responses"]] = msgspec.field(
        default_factory=lambda: {"chat", "embeddings"}
    )
    api_version: str | None = None
    deployments: bool = False
    max_tokens_field: MaxTokensField | None = None


def provider(name: str, options: Mapping[str, object], timeouts: Timeouts) -> OpenAIProvider:
    """See `registry.Factory`."""
    given = read_options(OpenAIOptions, options)
    operations: frozenset[Operation] = frozenset(given.operations)
    if not operations:
        raise Invalid("operations must name at least one.", param="operations")
    return OpenAIProvider(
        name=name,
        base_url=given.base_url,
        headers=_headers(given),
        operations=operations,
        api_version=given.api_version,
        deployments=given.deployments,
        max_tokens_field=given.max_tokens_field,
        timeouts=given.patience(timeouts),
        tls=given.tls(),
    )


def _headers(given: OpenAIOptions) -> Headers:
    extra = {name.lower(): value for name, value in given.headers.items()}
    if forbidden := sorted(_NOT_TO_BE_SET & set(extra)):
        raise Invalid(f"headers: {forbidden[0]!r} cannot be set.", param="headers")
    if given.api_key:
        if given.auth == "bearer":
            extra["authorization"] = f"Bearer {given.api_key}"
        else:
            extra["api-key"] = given.api_key
    return tuple(extra.items())
