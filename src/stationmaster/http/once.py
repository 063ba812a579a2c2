"""`Idempotency-Key`: a POST that is done once, however often it is sent.

Inside of the door, around both apps: what it stores and replays is what a client is sent, whatever
the route. A request without the header pays for looking for it, no more.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial

import msgspec
import structlog

from stationmaster.http.gatekeeper import Gatekeeper
from stationmaster.http.limiting import admit
from stationmaster.http.security import Render
from stationmaster.http.services import Services
from stationmaster.http.spool import Body, spooled
from stationmaster.http.wire.exchange import (
    App,
    Message,
    RawHeaders,
    Receive,
    Scope,
    Send,
    named_of,
    request_id_of,
)
from stationmaster.idempotency import Attempt, KeyInUse, KeyReused, Place, Reply
from stationmaster.idempotency.keys import MAX_REPLY_BYTES
from stationmaster.kernel.errors import Invalid, StationmasterError, Unavailable
from stationmaster.kernel.principal import Principal
from stationmaster.storage import accompanied

log = structlog.get_logger(__name__)

HEADER = b"idempotency-key"
REPLAYED = (b"idempotent-replayed", b"true")

MAX_BATCH_BYTES = 256 * 1000 * 1000
FORM_BYTES = 1024 * 1024  # of a form beside its files

# What says something of the content. Limits, ids and times are those of each answer.
_KEPT_HEADERS = frozenset(
    {
        b"cache-control",
        b"content-disposition",
        b"content-type",
        b"etag",
        b"link",
        b"location",
        b"x-accel-buffering",
    }
)
_KEPT_BEGINNING = b"x-stationmaster-"
# Nothing but calls of models: their transactions are the ledger's, each of many callers' calls.
_CALLS = frozenset(
    {
        "/v1/batch",
        "/v1/chat/completions",
        "/v1/embeddings",
        "/v1/messages",
        "/v1/process",
        "/v1/responses",
    }
)
# No credential is needed there, so nobody has keys of his own.
OPEN_PATHS = frozenset(
    {
        "/.well-known/jwks.json",
        "/api/invites/accept",
        "/v1/auth/login",
        "/v1/auth/oidc/login",
        "/v1/auth/refresh",
    }
)
_UNFINISHED = (b"event: error", b'data: {"error"')


class Once:
    """Pure ASGI, inside of the door."""

    def __init__(
        self,
        app: App,
        services: Services,
        gatekeeper: Gatekeeper,
        *,
        render: Render,
    ) -> None:
        self._app = app
        self._services = services
        self._gatekeeper = gatekeeper
        self._render = render
        options = services.options
        self._limit = max(
            MAX_BATCH_BYTES,
            options.max_request_size,
            options.max_upload_size + FORM_BYTES,
            options.max_file_size + FORM_BYTES,
        )

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Pass a request on, or answer it with what it was answered before."""
        posts = scope["type"] == "http" and scope["method"] == "POST"
        if not posts or HEADER not in named_of(scope) or scope["path"] in OPEN_PATHS:
            return self._app(scope, receive, send)
        return self._answer(_keys(scope), scope, receive, send)

    async def _answer(self, keys: list[bytes], scope: Scope, receive: Receive, send: Send) -> None:
        async with AsyncExitStack() as stack:
            try:
                found, body = await self._enter(stack, keys, scope, receive)
            except StationmasterError as error:
                request_id = request_id_of(scope)
                await _answer(send, *_refusal(error, self._render(scope, error, request_id)))
                return
            if isinstance(found, Reply):
                await _replay(send, found)
            else:
                # Its client may go and come again: the work goes on without it.
                await self._run(found, scope, body.receive(_nothing_more), send)

    async def _enter(
        self, stack: AsyncExitStack, keys: list[bytes], scope: Scope, receive: Receive
    ) -> tuple[Attempt | Reply, Body]:
        if len(keys) > 1:
            raise Invalid("Idempotency-Key is there twice.", code="invalid_idempotency_key")
        principal = await self._gatekeeper(scope)
        place = Place.of(principal, scope["path"], keys[0].decode("latin-1"))
        body = await stack.enter_async_context(spooled(scope, receive, limit=self._limit))
        return await self._begin(place, scope, principal, body), body

    async def _begin(
        self, place: Place, scope: Scope, principal: Principal, body: Body
    ) -> Attempt | Reply:
        keys = self._services.idempotency
        try:
            found = await keys.begin(place, _fingerprint(scope, body))
        except StationmasterError:
            await admit(self._services.limiter, scope, principal, "read")
            raise
        if isinstance(found, Reply):
            await admit(self._services.limiter, scope, principal, "read")
        return found

    async def _run(self, attempt: Attempt, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request be answered; what becomes of its key follows from the answer.

        Where this is cancelled the server stops: the key waits until its lease is known to be
        over.
        """
        heard = _Heard(send, partial(self._settle, attempt))
        try:
            if scope["path"] in _CALLS:
                await self._app(scope, receive, heard)
            else:
                with accompanied(attempt.mark):
                    await self._app(scope, receive, heard)
        except Exception:
            await heard.end()
            raise
        await heard.end()

    async def _settle(self, attempt: Attempt, heard: "_Heard") -> None:
        keys = self._services.idempotency
        try:
            if heard.done:
                await keys.finish(attempt, heard.reply())
            elif heard.refused:
                await keys.release(attempt)
            else:
                await keys.fail(attempt)
        except Unavailable as error:
            # Its client gets its answer. The key says that it is in use until this is written.
            log.error("What a request was answered is kept later.", code=error.error_code)


class _Heard:
    """Sends on, and keeps what is sent as far as there is room.

    What comes last waits until all is settled: who has seen the end finds it kept. A refusal waits
    as a whole: a balancer goes by its status to another server, which must find the key free.
    """

    def __init__(self, send: Send, settle: Callable[["_Heard"], Awaitable[None]]) -> None:
        self._send = send
        self._settle = settle
        self._settled = False
        self._status = 0
        self._headers: RawHeaders = []
        self._parts: list[bytes] = []
        self._size = 0
        self._complete = False
        self._held: list[Message] = []

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = list(message.get("headers", ()))
        elif message["type"] == "http.response.body":
            self._keep(message.get("body", b""))
            if not message.get("more_body"):
                self._complete = True
                await self.end()
        self._held.append(message)
        if self._complete or not self._refuses:
            held, self._held = self._held, []
            for each in held:
                await self._send(each)

    async def end(self) -> None:
        """Settle, unless that is done."""
        if not self._settled:
            self._settled = True
            await self._settle(self)

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > MAX_REPLY_BYTES:
            self._parts.clear()  # its end alone tells whether a stream has ended well
        self._parts.append(piece)

    @property
    def done(self) -> bool:
        """Whether this is the answer to keep: whole, and of something that was done."""
        return self._complete and 200 <= self._status < 400 and not self._broken_off()

    @property
    def refused(self) -> bool:
        """Whether the client must do something else: nothing was done."""
        return self._complete and self._refuses

    @property
    def _refuses(self) -> bool:
        return 400 <= self._status < 500

    def reply(self) -> Reply:
        """What to keep."""
        headers = tuple(
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in self._headers
            if name in _KEPT_HEADERS or name.startswith(_KEPT_BEGINNING)
        )
        whole = self._size <= MAX_REPLY_BYTES
        return Reply(self._status, headers, b"".join(self._parts) if whole else None)

    def _broken_off(self) -> bool:
        """Whether a stream ended with the news that it broke off."""
        if not any(
            name == b"content-type" and value.startswith(b"text/event-stream")
            for name, value in self._headers
        ):
            return False
        last = b"".join(self._parts).rstrip().rpartition(b"\n\n")[2]
        return last.startswith(_UNFINISHED)


async def _nothing_more() -> Message:
    never: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
    return await never


def _keys(scope: Scope) -> list[bytes]:
    return [value for name, value in scope["headers"] if name == HEADER]


def _fingerprint(scope: Scope, body: Body) -> str:
    parts = (scope["method"], scope["path"], scope["query_string"].decode("latin-1"), body.sha256)
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


async def _replay(send: Send, reply: Reply) -> None:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers]
    await _answer(send, reply.status, [*headers, REPLAYED], reply.body or b"")


async def _answer(send: Send, status: int, headers: RawHeaders, body: bytes) -> None:
    headers = [header for header in headers if header[0] != b"content-length"]
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _refusal(
    error: StationmasterError, rendered: tuple[int, RawHeaders, bytes]
) -> tuple[int, RawHeaders, bytes]:
    """A refusal as the route shows it. Whether to come back is the same in every shape."""
    status, headers, body = rendered
    if isinstance(error, KeyInUse):
        told = {b"retry-after", b"x-should-retry"}
        headers = [header for header in headers if header[0] not in told]
        headers += [
            (b"retry-after", b"%d" % error.retry_after),
            (b"x-should-retry", b"true"),
        ]
    return (422 if isinstance(error, KeyReused) else status), headers, body
