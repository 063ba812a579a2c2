"""Listening, and stopping in good order.

The first SIGTERM or SIGINT stops admission; running tasks get the shutdown timeout, then they are
interrupted, streams are told, and the process ends. A second signal ends it at once: the agents
die with it, by their parent-death signal, and the next start settles what was left.
"""

import asyncio
import contextlib
import gc
import ipaddress
import os
import shutil
import signal
import socket
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import structlog
import uvicorn

from stationmaster.bootstrap.application import Application, Endpoints, running
from stationmaster.bootstrap.protocol import BoundedProtocol, StrictSocketProtocol
from stationmaster.bootstrap.roles import duties, port
from stationmaster.bootstrap.tls import Certificate
from stationmaster.http.app import create_agent_app, create_app, create_probe_app
from stationmaster.kernel.errors import StationmasterError, Unavailable
from stationmaster.sessions.runs.one_job import OneJob
from stationmaster.settings import Settings
from stationmaster.telemetry import Redactor, configure_logging

log = structlog.get_logger(__name__)

BACKLOG = 2048
KEEP_ALIVE_S = 75  # longer than the usual proxy's 60, which would otherwise reuse a closed one
SOCKET_PREFIX = "stationmaster-"
SOCKET_NAME = "gateway.sock"
STARTING_S = 60.0  # from a socket that is made to one that is listened on
SHORT_PATH = 64  # of the 107 bytes that the path of a unix socket may have
GC_THRESHOLD = 20_000  # new objects, before the collector looks at them; some MB at most
MAX_FRAME_BYTES = 65_536  # of a WebSocket's frame from a client
PING_S = 30.0  # between two pings on a socket, and for the answer to one
TOLD_S = 1.0  # for whoever else watches the one job of a server to hear of its end
CLOSE_S = 5  # for answers under way when everything else has ended


class ServerFailed(StationmasterError):
    """A part of the server has stopped; its supervisor should start it again."""

    code = "server_failed"


class JobFailed(StationmasterError):
    """The one job of this server has not completed."""

    code = "job_failed"


@dataclass(frozen=True, slots=True)
class Listening:
    """A server that can be reached at `url`."""

    application: Application
    url: str


@asynccontextmanager
async def listening(
    settings: Settings, *, redactor: Redactor | None = None
) -> AsyncIterator[Listening]:
    """Run a server until the block ends, then stop it in good order.

    `redactor` learns the secrets that are made at the start.
    """
    with _sockets(settings) as sockets:
        servers: list[_Server] = []

        def prepare(application: Application) -> None:
            # A balancer sends whoever is ready its share, and tries one that was away with one
            # request at a time until that is answered: of several servers each must be whole.
            whole = not settings.on_sqlite
            servers.extend(_servers(application, sockets, whole=whole))

        async with running(
            settings, sockets.for_agents(), redactor=redactor, prepare=prepare
        ) as application:
            services = application.services
            loop = asyncio.get_running_loop()
            tasks = [asyncio.create_task(server.run(), name="http") for server in servers]
            if sockets.certificate is not None:
                renewal = asyncio.create_task(sockets.certificate.watch(), name="certificate")
            else:
                renewal = None
            try:
                for server in servers:
                    await server.ready()
                yield Listening(application, sockets.url())
                until = loop.time() + settings.shutdown_timeout
                await application.drain(settings.shutdown_timeout)
                for server in servers:
                    server.config.timeout_graceful_shutdown = max(CLOSE_S, int(until - loop.time()))
            finally:
                services.stopping.set()
                if renewal is not None:
                    renewal.cancel()
                for server in servers:
                    server.should_exit = True
                await asyncio.gather(*tasks)


@dataclass(frozen=True, slots=True)
class _Sockets:
    """What is listened on.

    `plain` is for agents that no sandbox gives a socket of the file system, on loopback: with TLS
    of our own, and where the API is not served. With TLS `redirect` sends others to it.
    """

    tcp: socket.socket
    unix: socket.socket
    certificate: Certificate | None
    plain: socket.socket | None
    redirect: socket.socket | None

    def url(self) -> str:
        """Where clients reach the server."""
        return _url(self.tcp, "http" if self.certificate is None else "https")

    def for_agents(self) -> Endpoints:
        """Where agents reach the gateway."""
        return Endpoints(Path(self.unix.getsockname()), _url(self.plain or self.tcp, "http"))


@contextmanager
def _sockets(settings: Settings) -> Iterator[_Sockets]:
    certificate = None
    if settings.ssl_certfile is not None and settings.ssl_keyfile is not None:
        certificate = Certificate(settings.ssl_certfile, settings.ssl_keyfile)
    serves = duties(settings).serves
    with contextlib.ExitStack() as stack:
        tcp = stack.enter_context(_tcp_socket(settings.host, port(settings)))
        unix = stack.enter_context(_gateway_socket())
        plain = redirect = None
        if certificate is not None or not serves:
            plain = stack.enter_context(_tcp_socket("127.0.0.1", 0))
        if settings.http_redirect_port is not None and serves:
            redirect = stack.enter_context(_tcp_socket(settings.host, settings.http_redirect_port))
        yield _Sockets(tcp, unix, certificate, plain, redirect)


def _servers(application: Application, sockets: _Sockets, *, whole: bool) -> "list[_Server]":
    services, serves = application.services, application.does.serves
    app = create_app(services, whole=whole) if serves else create_probe_app(services)
    context = None if sockets.certificate is None else sockets.certificate.context
    agents = create_agent_app(services)
    servers = [
        _Server(_config(app, tls=context), sockets.tcp),
        _Server(_config(agents, ws="none"), sockets.unix),
    ]
    if sockets.plain is not None:
        servers.append(_Server(_config(agents, ws="none"), sockets.plain))
    if sockets.redirect is not None:
        port = sockets.tcp.getsockname()[1]
        only = replace(services.door, https_redirect=True, https_port=port)
        servers.append(_Server(_config(create_app(replace(services, door=only))), sockets.redirect))
    return servers


async def serve(settings: Settings, *, announce: Callable[[Listening], None] | None = None) -> None:
    """Run a server until a signal ends it. `announce` is called once it can be reached.

    Configures the process's logging. Raises `ServerFailed` where a part of it has stopped, and
    `JobFailed` where it was there for one job and that has not completed.
    """
    redactor = Redactor(*settings.secrets())
    configure_logging(
        level=settings.log_level, log_format=settings.log_format, redactor=redactor, gather=True
    )
    stop = asyncio.Event()
    with _signals(stop):
        async with listening(settings, redactor=redactor) as server:
            for warning in server.application.warnings:
                log.warning(warning)
            log.info("The server is ready.", url=server.url)
            if announce is not None:
                announce(server)
            _spare_collector()
            asyncio.get_running_loop().add_signal_handler(
                signal.SIGHUP, server.application.reread.set
            )
            failed = server.application.readiness.failed
            job = server.application.services.one_job
            await _either(stop, failed, *([] if job is None else [job.ended]))
            if job is not None and job.ended.is_set():
                await _told(job, stop, settings.shutdown_timeout)
            log.info("The server is stopping.", timeout=settings.shutdown_timeout)
    log.info("The server has stopped.")
    if failed.is_set():
        raise ServerFailed
    if job is not None and job.failed:
        raise JobFailed


def _spare_collector() -> None:
    """Keep what lives as long as the server out of the collector's sight.

    With the defaults a tenth and more of the time of a busy server went into looking at it again
    and again; little of what a request leaves behind is in cycles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, *gc.get_threshold()[1:])
    gc.enable()


async def _told(job: OneJob, stop: asyncio.Event, timeout: float) -> None:
    """Wait until the request that began the job is answered, for `timeout` seconds at most."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            await _either(stop, job.answered)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(TOLD_S):
            await stop.wait()


async def _either(*events: asyncio.Event) -> None:
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


@contextmanager
def _signals(stop: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def received(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, received, number)
    try:
        yield
    finally:
        for number in (*signals, signal.SIGHUP):
            loop.remove_signal_handler(number)


class _Server(uvicorn.Server):
    """A uvicorn server on a socket of ours, which leaves the signals alone."""

    def __init__(self, config: uvicorn.Config, listener: socket.socket) -> None:
        config.load()
        super().__init__(config)
        self._listener = listener
        self._up = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ours to handle, not uvicorn's."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and let `ready` return."""
        await super().startup(sockets)
        self._up.set()

    async def run(self) -> None:  # type: ignore[override]
        """Serve until `should_exit`."""
        await self.serve([self._listener])

    async def ready(self) -> None:
        """Return once connections are accepted."""
        await self._up.wait()


def _config(
    app: Any,
    *,
    ws: Literal["none"] | type[StrictSocketProtocol] = StrictSocketProtocol,
    tls: ssl.SSLContext | None = None,
) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="none",
        http=BoundedProtocol,
        ssl_context_factory=None if tls is None else lambda _config, _default: tls,
        ws=ws,
        ws_max_size=MAX_FRAME_BYTES,
        ws_ping_interval=PING_S,
        ws_ping_timeout=PING_S,
        lifespan="off",
        log_config=None,
        log_level="warning",  # what it says at the start and the end, we say
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=CLOSE_S,
        # Who a request comes from is never believed from a header.
        proxy_headers=False,
        # Nor from the request before it: what waits behind another one on a connection is begun by
        # that one, and had its principal in its log lines.
        reset_contextvars=True,
    )


def _tcp_socket(host: str, port: int) -> "contextlib.closing[socket.socket]":
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise Unavailable(
            f"Cannot listen on {host}:{port}: {error.strerror or error}.", code="address_in_use"
        ) from error
    return contextlib.closing(listener)


@contextmanager
def _gateway_socket() -> Iterator[socket.socket]:
    place = Path(tempfile.gettempdir())
    if len(str(place)) > SHORT_PATH:
        place = Path("/tmp")  # noqa: S108 - the directory made there is ours alone
    _sweep(place)
    directory = Path(tempfile.mkdtemp(prefix=SOCKET_PREFIX, dir=place))
    try:
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as listener:
            listener.bind(str(directory / SOCKET_NAME))
            listener.listen(BACKLOG)
            yield listener
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _sweep(place: Path) -> None:
    """Delete the directories of servers that were killed: nobody listens on their sockets.

    One whose server is just starting is not listened on either.
    """
    for directory in place.glob(f"{SOCKET_PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - directory.stat().st_mtime < STARTING_S:
                continue
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
            try:
                probe.connect(str(directory / SOCKET_NAME))
            except ConnectionRefusedError:
                shutil.rmtree(directory, ignore_errors=True)
            except OSError:
                continue  # another user's, or one that is just being made


def _url(listener: socket.socket, scheme: str) -> str:
    host, port = listener.getsockname()[:2]
    address = ipaddress.ip_address(host)
    if address.is_unspecified:
        address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    host = f"[{address}]" if address.version == 6 else str(address)
    return f"{scheme}://{host}:{port}"
