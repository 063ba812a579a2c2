"""What every request passes, whatever it asks for: its id, its headers, its line in the log."""

import asyncio
import re
import time
from collections.abc import Callable

import structlog

from stationmaster.http.answer import Answer
from stationmaster.http.compression import wants_gzip
from stationmaster.http.security import PROBES, Render
from stationmaster.http.wire.exchange import (
    TAKE,
    App,
    RawHeaders,
    Receive,
    RequestGoneError,
    Scope,
    Send,
    named_of,
)
from stationmaster.kernel.errors import Unavailable
from stationmaster.kernel.ids import new_id
from stationmaster.telemetry import Metrics, RequestLog, about

log = structlog.get_logger(__name__)

UNMATCHED = "unmatched"
CLIENT_GONE = 499  # for the log and the metrics: the client left before anything was sent
_CLIENT_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_CLIENT_ID_HEADERS = frozenset({b"x-client-request-id", b"x-request-id"})
_MAX_PATH = 256  # characters of a path in the log

Label = Callable[[Scope], str]
Quiet = Callable[[str, int], bool]
"""Whether an answer, by its endpoint and status, is one of those that nobody wants to read of."""


def asked_often(endpoint: str, _status: int) -> bool:
    """Whether it is one of the probes."""
    return endpoint in PROBES


def route_template(scope: Scope) -> str:
    """The path of the route that served the request, with names where the path has values."""
    return str(getattr(scope.get("route"), "path", UNMATCHED))


class Entrance:
    """Pure ASGI, around everything: nothing is buffered, streams pass through."""

    def __init__(
        self,
        app: App,
        *,
        metrics: Metrics,
        render: Render,
        label: Label = route_template,
        quiet: Quiet = asked_often,
        compress: bool = False,
    ) -> None:
        """`render` shows an error that nothing below has answered.

        With `compress` large answers are compressed for who takes that.
        """
        self._app = app
        self._metrics = metrics
        self._render = render
        self._label = label
        self._quiet = quiet
        self._compress = compress
        self._log = RequestLog(__name__)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        kind = scope["type"]
        if kind not in {"http", "websocket"}:
            raise NotImplementedError("Only HTTP and WebSockets are spoken here.")
        started = time.perf_counter()
        state, headers, socket = scope.setdefault("state", {}), scope["headers"], kind != "http"
        request_id = state["request_id"] = new_id("req")
        gzip = None
        named = named_of(scope)
        if self._compress and not socket:
            gzip = b"accept-encoding" in named and wants_gzip(headers)
        answer = Answer(send, state=state, gzip=gzip)
        said = {"request_id": request_id}
        if not _CLIENT_ID_HEADERS.isdisjoint(named) and (client_id := _client_id(headers)):
            said["client_request_id"] = client_id
        token = about.begin(said)
        try:
            await self._app(scope, receive, answer)
        except RequestGoneError:
            pass  # the client left before its request was complete: there is nobody to answer
        except Exception as error:
            log.exception("A request failed in this server.")
            if not answer.status and not socket:
                await answer.whole(*self._render(scope, error, request_id))
        except asyncio.CancelledError:
            # Nobody cancels a request but Uvicorn, which at the end of its patience with a
            # stopping server would answer 500 itself, in plain text.
            if answer.status or socket:
                raise
            stopping = Unavailable("The server is stopping.", code="shutting_down")
            await answer.whole(*self._render(scope, stopping, request_id))
        finally:
            state.pop(TAKE, None)  # it holds the scope, which holds the state
            self._note(scope, answer, time.perf_counter() - started)
            about.end(token)

    def _note(self, scope: Scope, answer: Answer, seconds: float) -> None:
        endpoint, status = self._label(scope), answer.status or CLIENT_GONE
        method = scope.get("method", "GET")  # a socket's handshake
        self._metrics.http_request(method=method, endpoint=endpoint, status=status, seconds=seconds)
        self._log.tell(
            "A request was answered." if answer.complete else "An answer was cut short.",
            quiet=self._quiet(endpoint, status),
            method=method,
            path=scope["path"][:_MAX_PATH],
            endpoint=endpoint,
            status_code=status,
            duration_ms=round(seconds * 1000, 3),
        )


def _client_id(headers: RawHeaders) -> str | None:
    """The client's own id for the request, if it can be one. It is only written to the log."""
    for name, value in headers:
        if name in _CLIENT_ID_HEADERS and _CLIENT_ID.fullmatch(value):
            return value.decode()
    return None
