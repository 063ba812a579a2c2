"""`GET /v1/models` and `/v1/models/{id}`, in the shape of the client that asks.

A request with `anthropic-version` gets Anthropic's shape, any other OpenAI's.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import msgspec

from stationmaster.gateway import Gateway
from stationmaster.gateway.listing import Listed, Listings
from stationmaster.http.wire import anthropic, openai
from stationmaster.http.wire.agent_models import OWNER, PREFIX, AgentModels
from stationmaster.http.wire.exchange import RawHeaders, Receive, Scope, Send, request_id_of
from stationmaster.http.wire.face import Refusal
from stationmaster.kernel.errors import Invalid, NotFound, StationmasterError, Unavailable
from stationmaster.kernel.principal import Principal

MODELS = "/v1/models"

CREATED = datetime(2026, 1, 1, tzinfo=UTC)
"""Both shapes want a time; nobody tells it of every model."""


class ModelsApp:
    """The ASGI app. `resolve` says who asks, by the request's scope."""

    def __init__(
        self,
        gateway: Gateway,
        resolve: Callable[[Scope], Awaitable[Principal]],
        listings: Listings | None = None,
        agents: AgentModels | None = None,
    ) -> None:
        self._gateway = gateway
        self._resolve = resolve
        self._listings = listings or Listings()
        self._agents = agents

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            status, headers, body = await self._answer(scope)
        except StationmasterError as error:
            status, headers, body = refuse(scope, error, request_id_of(scope))
        head = [*headers, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": head})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope) -> Refusal:
        principal = await self._resolve(scope)
        if scope["method"] not in {"GET", "HEAD"}:
            return _not_allowed(scope)
        models = await self._listings.of(self._gateway.models)
        usable = [each for each in models if self._gateway.may_use(principal, each.name)]
        name = unquote(scope["path"].removeprefix(MODELS).removeprefix("/"))
        usable += await self._agents_of(principal, name)
        of_anthropic = is_anthropic(scope)
        if not name:
            shown = _anthropic_list(usable) if of_anthropic else _openai_list(usable)
        else:
            shown = self._one(principal, name, usable, of_anthropic=of_anthropic)
        headers: RawHeaders = [(b"content-type", b"application/json")]
        return 200, headers, msgspec.json.encode(shown)

    async def _agents_of(self, principal: Principal, name: str) -> list[Listed]:
        """The agents, which need the database. While it is away the models are told without."""
        if self._agents is None:
            return []
        try:
            names = dict.fromkeys(await self._agents.names(principal))
        except Unavailable:
            if name.startswith(PREFIX):
                raise
            return []
        return [Listed(each, OWNER) for each in names]

    def _one(
        self, principal: Principal, name: str, usable: list[Listed], *, of_anthropic: bool
    ) -> dict[str, Any]:
        found = next((each for each in usable if each.name == name), None)
        if found is None:
            # An alias, or a model that nobody lists but that can be called.
            if not self._gateway.may_use(principal, name):
                raise NotFound(f"model: {name[:256]} is not served here.", code="unknown_model")
            self._gateway.check_model(name, principal)
            found = Listed.of(self._gateway.models, name)
        return _anthropic(found) if of_anthropic else _openai(found)


def is_anthropic(scope: Scope) -> bool:
    """Whether the client speaks Anthropic's format."""
    return any(name == b"anthropic-version" for name, _ in scope["headers"])


def refuse(scope: Scope, error: Exception, request_id: str) -> Refusal:
    """An error in the shape of the client that asks."""
    refusing = anthropic.refuse if is_anthropic(scope) else openai.refuse
    return refusing(error, request_id)


def _not_allowed(scope: Scope) -> Refusal:
    error = Invalid("Only GET is allowed here.")
    _, headers, body = refuse(scope, error, request_id_of(scope))
    return 405, [*headers, (b"allow", b"GET")], body


def _openai(model: Listed) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": int(CREATED.timestamp()),
        "owned_by": model.provider,
    }


def _openai_list(models: list[Listed]) -> dict[str, Any]:
    return {"object": "list", "data": [_openai(each) for each in models]}


def _anthropic(model: Listed) -> dict[str, Any]:
    return {
        "type": "model",
        "id": model.name,
        "display_name": model.name,
        "created_at": CREATED.isoformat().replace("+00:00", "Z"),
        "lifecycle": "active",
        "max_input_tokens": model.context_window,
        "max_tokens": model.max_output,
    }


def _anthropic_list(models: list[Listed]) -> dict[str, Any]:
    """All on one page: they are few."""
    shown = [_anthropic(each) for each in models]
    return {
        "data": shown,
        "has_more": False,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
    }
