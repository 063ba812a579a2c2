"""The endpoints for model calls, as plain ASGI: the hot ones.

Everything that a path answers has the shape of its vendor, errors of every kind included.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from functools import lru_cache
from http import HTTPStatus

import structlog

from stationmaster.gateway import Gateway, GatewayCall
from stationmaster.http.advising import Adviser
from stationmaster.http.limiting import address_of, note
from stationmaster.http.wire import anthropic
from stationmaster.http.wire.agent_models import AgentModels, names_agent
from stationmaster.http.wire.exchange import (
    App,
    Exchange,
    RawHeaders,
    Receive,
    RequestGoneError,
    Scope,
    Send,
    read_body,
)
from stationmaster.http.wire.face import Face
from stationmaster.http.wire.plain_chat import Prepared, prepare, with_plain_members, within
from stationmaster.http.wire.remembered import remember
from stationmaster.kernel.errors import Invalid, NotFound, StationmasterError
from stationmaster.kernel.ids import new_id
from stationmaster.kernel.money import to_dollars
from stationmaster.kernel.principal import Principal
from stationmaster.limits import RateLimited
from stationmaster.responses import Responses

log = structlog.get_logger(__name__)

Resolve = Callable[[Scope], Awaitable[Principal]]
"""Who asks, by the request's scope. Raises `Unauthenticated`."""

MAX_BODY_BYTES = 32 * 1000 * 1000
KEEPALIVE_SECONDS = 15.0
BODY_SECONDS = 120.0
WATCH_AFTER = 0.25
"""Seconds. To watch for the client's going takes a task, a tenth of what a call costs: what ends
sooner does without."""

_TO_COME_AGAIN = frozenset({429, 503, 529})  # the last is Anthropic's for an overload


class ModelApp:
    """The ASGI app; `model_app` makes one."""

    def __init__(
        self,
        gateway: Gateway,
        resolve: Resolve,
        *,
        faces: Mapping[str, Face],
        otherwise: Face,
        adviser: Adviser | None,
        responses: Responses | None,
        agents: AgentModels | None,
        keepalive: float,
        max_body: int,
    ) -> None:
        self._gateway = gateway
        self._resolve = resolve
        self._faces = faces
        self._otherwise = otherwise
        self._adviser = adviser
        self._responses = responses
        self._agents = agents
        self._keepalive = keepalive
        self._max_body = max_body
        self._clients = _Clients()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. The path is the whole one, wherever the app is mounted."""
        request_id = _request_id(scope)
        face = self._faces.get(scope["path"])
        known = face or self._otherwise
        exchange = Exchange(send, request_id=request_id, keepalive=self._keepalive, ping=known.ping)
        try:
            if face is None:
                raise NotFound("There is nothing here.")
            if scope["method"] != "POST":
                await _not_allowed(face, exchange, request_id)
                return
            principal = await self._resolve(scope)
            raw = await read_body(scope, receive, limit=self._max_body, seconds=BODY_SECONDS)
            answer = self._count if face.counts else self._answer
            client = self._clients.add(receive)
            try:
                await answer(face, principal, raw, exchange, scope)
            except asyncio.CancelledError:
                if not client.gone:
                    raise
            finally:
                if client.leave():
                    await client.settled()
        except RequestGoneError:
            return
        except StationmasterError as error:
            await _refuse(known, exchange, error, scope)
        except Exception as error:
            log.exception("A model call failed in this server.", request_id=request_id)
            await _refuse(known, exchange, error, scope)
        finally:
            if exchange.pings:
                await exchange.drop()

    async def _count(
        self, face: Face, principal: Principal, raw: bytes, exchange: Exchange, scope: Scope
    ) -> None:
        if face.operation == "responses" and self._responses is not None:
            raw = (await remember(principal, raw, self._responses)).raw
        counted = await self._gateway.count_tokens(
            principal,
            raw,
            _texts(scope["headers"]),
            scope["query_string"].decode("latin-1"),
            operation=face.operation,
            address=address_of(scope),
        )
        note(scope, counted.standing)
        await exchange.whole(counted.status, _raw(counted.headers), counted.body)

    async def _answer(
        self, face: Face, principal: Principal, raw: bytes, exchange: Exchange, scope: Scope
    ) -> None:
        asked = Prepared(raw)
        if face.operation == "chat" and self._adviser is not None:
            asked = await prepare(principal, raw, self._adviser)
        elif face.operation == "responses" and self._responses is not None:
            found = await remember(principal, raw, self._responses)
            asked = Prepared(found.raw, turn=found.turn)
        if self._agents is not None and names_agent(face.operation, asked.raw):
            await self._agents.answer(face, principal, asked, exchange, scope)
            return
        call = await self._gateway.admit(
            principal,
            asked.raw,
            _texts(scope["headers"]),
            scope["query_string"].decode("latin-1"),
            operation=face.operation,
            address=address_of(scope),
        )
        note(scope, call.grant.standing)
        try:
            if call.stream:
                exchange.keep_alive(lambda: call.between_events)
            async with within(asked.timeout):
                await call.start()
                if call.body is None:
                    await _relay_stream(call, asked, exchange)
                else:
                    await _relay_whole(face, call, asked, exchange)
        except StationmasterError as error:
            if not exchange.started:
                raise
            log.warning(
                "A stream broke off.",
                request_id=exchange.request_id,
                call_id=call.context.call_id,
                code=error.error_code,
            )
            await exchange.end(face.frame(error, exchange.request_id))
        else:
            if call.body is None:
                await exchange.end()
        finally:
            await call.aclose()


def model_app(
    gateway: Gateway,
    resolve: Resolve,
    *,
    faces: Mapping[str, Face] = anthropic.FACES,
    adviser: Adviser | None = None,
    responses: Responses | None = None,
    agents: AgentModels | None = None,
    keepalive: float = KEEPALIVE_SECONDS,
    max_body: int = MAX_BODY_BYTES,
) -> App:
    """The app for the paths of `faces`, on TCP and unix sockets alike.

    `adviser` chooses for chats that name no model; without one they are refused. `responses` keeps
    those of OpenAI's Responses API, `agents` answers for models that are agents. `keepalive` is in
    seconds, `max_body` in bytes. Any other path gets a 404 in Anthropic's
    shape, any other method a 405.
    """
    return ModelApp(
        gateway,
        resolve,
        faces=faces,
        otherwise=anthropic.FACES[anthropic.MESSAGES],
        adviser=adviser,
        responses=responses,
        agents=agents,
        keepalive=keepalive,
        max_body=max_body,
    )


class _Client:
    """Cancels the task that made it when the client goes away; `gone` tells that cancel apart.

    Whether the client is still there is asked from `WATCH_AFTER` on: most of what ends sooner
    would end before the question did.
    """

    def __init__(self, receive: Receive, waiting: "dict[_Client, float]") -> None:
        self._receive = receive
        self._waiting = waiting
        self._work = asyncio.current_task()
        self._over = False
        self._watch: asyncio.Task[None] | None = None
        self.gone = False

    def leave(self) -> bool:
        """The work is done. Whether the client went first: then `settled` must be awaited."""
        self._over = True
        self._waiting.pop(self, None)
        if self._watch is not None:
            self._watch.cancel()
        return self.gone

    async def settled(self) -> None:
        """Take the cancel back, which may be still to come where the work was done already."""
        assert self._watch is not None
        assert self._work is not None
        with suppress(asyncio.CancelledError):
            await asyncio.wait((self._watch,))
        self._work.uncancel()

    def watch(self) -> None:
        """Ask from now on."""
        self._watch = asyncio.get_running_loop().create_task(self._until_gone())
        self._watch.add_done_callback(self._stop)

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def _stop(self, watch: "asyncio.Task[None]") -> None:
        if not self._over and not watch.cancelled() and self._work is not None:
            self.gone = True
            self._work.cancel()


class _Clients:
    """Those whose calls are younger than `WATCH_AFTER`. There is one timer for all of them."""

    def __init__(self) -> None:
        self._since: dict[_Client, float] = {}  # in the order of their coming
        self._timer: asyncio.TimerHandle | None = None

    def add(self, receive: Receive) -> _Client:
        """Look after the client of the present task's work. It must `leave`."""
        client = _Client(receive, self._since)
        self._since[client] = time.monotonic()
        if self._timer is None:
            self._look_in(WATCH_AFTER)
        return client

    def _look_in(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        now = time.monotonic()
        for client, since in list(self._since.items()):
            left = since + WATCH_AFTER - now
            if left > 0:
                self._look_in(left)
                return
            del self._since[client]
            client.watch()


async def _relay_stream(call: GatewayCall, asked: Prepared, exchange: Exchange) -> None:
    headers = [*_raw(_without(call.headers, "cache-control")), *_told_of(call, asked)]
    await exchange.begin(headers)
    told = call.chunks() if asked.turn is None else asked.turn.chunks(call.chunks())
    async with aclosing(told) as chunks:
        async for chunk in chunks:
            await exchange.write(chunk)


async def _relay_whole(face: Face, call: GatewayCall, asked: Prepared, exchange: Exchange) -> None:
    body = call.body or b""
    # Stop the timer first: a ping between this question and the answer would begin a stream.
    if exchange.pings:
        await exchange.quiet()
    if not exchange.started:
        headers = [*_raw(call.headers), *_told_of(call, asked)]
        if call.status in _TO_COME_AGAIN:
            headers += _retry_after(call)
        if call.status == HTTPStatus.OK:
            if asked.turn is not None:
                body = await asked.turn.whole(body)
            elif face.operation == "chat":
                body = with_plain_members(call, body)
        await exchange.whole(call.status, headers, body)
        return
    # The stream was begun while the provider was silent; its answer can only be an event now.
    await exchange.end(face.told(body, exchange.request_id))


def _told_of(call: GatewayCall, asked: Prepared) -> RawHeaders:
    """Who answered; and what it cost and used, where that is known before the answer goes out."""
    context, cache, entry = call.context, call.cache, call.entry
    told = [
        (b"x-stationmaster-call", context.call_id.encode()),
        (b"x-stationmaster-provider", _plain(context.provider)),
        (b"x-stationmaster-model", _plain(context.model)),
    ]
    if asked.reason is not None:
        told.append((b"x-stationmaster-reason", asked.reason.encode()))
    if cache is not None:
        told.append((b"x-cache", cache.encode()))
    if entry is not None:
        usage = entry.usage
        told += [
            (b"x-stationmaster-cost-usd", f"{to_dollars(entry.cost):f}".encode()),
            (
                b"x-stationmaster-tokens",
                b"input=%d, output=%d, cache_write=%d, cache_read=%d"
                % (
                    usage.input_tokens,
                    usage.output_tokens,
                    usage.cache_write_tokens,
                    usage.cache_read_tokens,
                ),
            ),
        ]
    return told


@lru_cache(maxsize=1024)
def _plain(name: str) -> bytes:
    """A name as a header's value: what is not plain ASCII is left out."""
    return "".join(sign for sign in name if "!" <= sign <= "~").encode()


def _retry_after(call: GatewayCall) -> RawHeaders:
    """Clients that are not told when to come back come back at once."""
    told = {name for name, _ in call.headers}
    return [] if told & {"retry-after", "retry-after-ms"} else [(b"retry-after", b"5")]


async def _refuse(face: Face, exchange: Exchange, error: Exception, scope: Scope) -> None:
    if isinstance(error, RateLimited):
        note(scope, error.standing)
    if exchange.started:
        # Too late for words: without its end, the client sees the answer as broken.
        if not isinstance(error, StationmasterError):
            raise error
        return
    await exchange.whole(*face.refuse(error, exchange.request_id))


async def _not_allowed(face: Face, exchange: Exchange, request_id: str) -> None:
    _, headers, body = face.refuse(Invalid("Only POST is allowed here."), request_id)
    await exchange.whole(405, [*headers, (b"allow", b"POST")], body)


def _texts(headers: RawHeaders) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


def _raw(headers: tuple[tuple[str, str], ...]) -> RawHeaders:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def _without(headers: tuple[tuple[str, str], ...], name: str) -> tuple[tuple[str, str], ...]:
    return tuple(header for header in headers if header[0] != name)


def _request_id(scope: Scope) -> str:
    """The id that middleware gave the request, or a new one."""
    given = scope.get("state", {}).get("request_id")
    return given if isinstance(given, str) else new_id("req")
