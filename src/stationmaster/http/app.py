"""The two apps: the server's, and the one that agents see."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING

from stationmaster.gateway.listing import Listings
from stationmaster.http import problems
from stationmaster.http.advising import Adviser
from stationmaster.http.entrance import UNMATCHED, Entrance, route_template
from stationmaster.http.gatekeeper import Gatekeeper
from stationmaster.http.later import Later
from stationmaster.http.once import Once
from stationmaster.http.one_job import OneJobDoor
from stationmaster.http.probes import Probes
from stationmaster.http.routes.managed.places import is_managed
from stationmaster.http.routes.openai.places import is_openai
from stationmaster.http.security import PROBES, Door, Refusal, Refused
from stationmaster.http.services import Services
from stationmaster.http.sockets.connection import PATH, no_socket
from stationmaster.http.wire import anthropic, openai
from stationmaster.http.wire.agent_models import AgentModels
from stationmaster.http.wire.anthropic import MESSAGES
from stationmaster.http.wire.exchange import App, Receive, Scope, Send, send_whole
from stationmaster.http.wire.model_app import model_app
from stationmaster.http.wire.models import MODELS, ModelsApp
from stationmaster.http.wire.models import refuse as refuse_models
from stationmaster.kernel.origin import Origin

if TYPE_CHECKING:
    from fastapi import FastAPI

FACES = {**anthropic.FACES, **openai.FACES}
"""The endpoints for model calls, by path."""


def create_app(services: Services, *, whole: bool = False) -> App:
    """The whole HTTP interface, as an ASGI app.

    Unless it is to be `whole` from the start, the routes of each API are made when it is first
    asked for something, which then takes half a second longer.
    """
    gatekeeper = Gatekeeper(services)

    listings = Listings()

    def later(make: "Callable[[], FastAPI]") -> Later:
        def made() -> "FastAPI":
            api = make()
            api.state.services = services
            api.state.gatekeeper = gatekeeper
            api.state.listings = listings
            return api

        return Later(made)

    agents = AgentModels(services)
    calls = model_app(
        services.gateway,
        gatekeeper,
        faces=FACES,
        adviser=Adviser(services.reports, services.options),
        responses=services.responses,
        agents=agents,
        keepalive=services.options.keepalive,
    )
    api, managed, others = later(_api), later(_managed), later(_others)
    stream = Later(lambda: _stream(services, gatekeeper))
    if whole:
        for each in (api, managed, others, stream):
            each.make()
    fork = _Fork(
        api,
        managed=managed,
        others=others,
        calls=calls,
        models=ModelsApp(services.gateway, gatekeeper, listings, agents),
        stream=stream,
        probes=Probes(services, gatekeeper),
    )
    inside: App = fork if services.one_job is None else OneJobDoor(fork, services.one_job)
    once = Once(inside, services, gatekeeper, render=_render)
    door = Door(once, services.door, render=_render, refused=_noting(services))
    return Entrance(door, metrics=services.metrics, render=_render, label=_label, compress=True)


def _noting(services: Services) -> Refused:
    def note(here: Origin, status: int, scope: Scope) -> None:
        services.refusals.note(here, status=status, endpoint=_label(scope))

    return note


def create_agent_app(services: Services) -> App:
    """What an agent sees on its socket: model calls, by its run's token, and nothing else."""
    gatekeeper = Gatekeeper(services)
    calls = model_app(services.gateway, gatekeeper.run_only, keepalive=services.options.keepalive)
    door = _AgentDoor(calls)
    return Entrance(
        door, metrics=services.metrics, render=_of_agent, label=_label, quiet=_counts_without_right
    )


def create_probe_app(services: Services) -> App:
    """What a server without the API tells of itself: whether it lives, works, and how."""
    probes = Probes(services, Gatekeeper(services))
    door = Door(probes, services.door, render=_render, refused=_noting(services))
    return Entrance(door, metrics=services.metrics, render=_render, label=_label)


# Many servers are never asked for what these have: it is imported when it is.


def _api() -> "FastAPI":
    from stationmaster.http.routes.app import stationmaster_api

    return stationmaster_api()


def _managed() -> "FastAPI":
    from stationmaster.http.routes.managed.app import managed_api

    return managed_api()


def _others() -> "FastAPI":
    from stationmaster.http.routes.openai.app import openai_api

    return openai_api()


def _stream(services: Services, gatekeeper: Gatekeeper) -> App:
    from stationmaster.http.sockets.stream import StreamApp

    return StreamApp(services, gatekeeper)


class _Fork:
    """Sends model calls past the framework: they are many, and have errors of their own form.

    Sockets go past it too: what it would do for them is little.
    """

    def __init__(
        self,
        api: App,
        *,
        managed: App,
        others: App,
        calls: App,
        models: App,
        stream: App,
        probes: App,
    ) -> None:
        self._api = api
        self._managed = managed
        self._others = others
        self._calls = calls
        self._models = models
        self._stream = stream
        self._probes = probes

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return self._for(scope)(scope, receive, send)

    def _for(self, scope: Scope) -> App:
        path: str = scope["path"]
        if scope["type"] == "websocket":
            return self._stream if path == PATH else no_socket
        if path in FACES or (path.startswith(MESSAGES + "/") and not is_managed(scope)):
            return self._calls
        if path in PROBES:
            return self._probes
        if _lists_models(path):
            return self._models
        if is_openai(scope):
            return self._others
        return self._managed if is_managed(scope) else self._api


def _lists_models(path: str) -> bool:
    return path == MODELS or path.startswith(MODELS + "/")


def _counts_without_right(endpoint: str, status: int) -> bool:
    """An agent that is launched ahead has no run yet, and asks some dozens of times for counts."""
    return endpoint == anthropic.COUNT_TOKENS and status == HTTPStatus.UNAUTHORIZED


class _AgentDoor:
    """Model calls, and the question whether anybody is here."""

    def __init__(self, calls: App) -> None:
        self._calls = calls

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["path"] != "/" or scope["method"] not in {"GET", "HEAD"}:
            return self._calls(scope, receive, send)
        return send_whole(send, 200, [(b"content-type", b"application/json")], b"{}")


def _label(scope: Scope) -> str:
    path: str = scope["path"]
    if path in FACES or path in PROBES or (path == PATH and scope["type"] == "websocket"):
        return path
    if _lists_models(path):
        return MODELS if path == MODELS else MODELS + "/{model}"
    return route_template(scope) if "route" in scope else UNMATCHED


def _problem(error: Exception, request_id: str) -> Refusal:
    answer = problems.respond(error, request_id)
    headers = [header for header in answer.raw_headers if header[0] != b"content-length"]
    return answer.status_code, headers, bytes(answer.body)


def _of_agent(_scope: Scope, error: Exception, request_id: str) -> Refusal:
    return anthropic.refuse(error, request_id)


def _render(scope: Scope, error: Exception, request_id: str) -> Refusal:
    path: str = scope["path"]
    if path in openai.FACES or is_openai(scope):
        return openai.refuse(error, request_id)
    if _lists_models(path):
        return refuse_models(scope, error, request_id)
    foreign = path == MESSAGES or path.startswith(MESSAGES + "/") or is_managed(scope)
    return (anthropic.refuse if foreign else _problem)(error, request_id)
