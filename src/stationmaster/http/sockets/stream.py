"""`/v1/stream`: chats, tasks and sessions over one WebSocket, several at a time.

A client says who it is in the handshake (see `credentials`) or in its first frame; then each frame
is a request, answered by frames that carry its `id`. A task goes on when its socket closes, unless
the client chose otherwise; `resume` with the last `seq` goes on following it where that was.
"""

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
from pydantic import ValidationError

from stationmaster.events import Event, Live
from stationmaster.http import problems
from stationmaster.http.gatekeeper import Gatekeeper
from stationmaster.http.limiting import address_of, admit, take_place
from stationmaster.http.services import Services
from stationmaster.http.shapes.stream import (
    FRAMES,
    AuthFrame,
    CancelFrame,
    ChatFrame,
    FollowFrame,
    Frame,
    PingFrame,
    ResumeFrame,
    TaskFrame,
)
from stationmaster.http.sockets.chat import chat_frames
from stationmaster.http.sockets.connection import Close, ClosedError, Socket, error_frame
from stationmaster.http.sockets.credentials import Who, by_handshake, offered, with_key
from stationmaster.http.sockets.frames import TaskFrames, result_frame
from stationmaster.http.sockets.sessions import session_frames, start_of
from stationmaster.http.streams import StalledError, race
from stationmaster.http.task_request import check_project, files_of, options_of
from stationmaster.http.wire.exchange import Receive, Scope, Send, request_id_of
from stationmaster.kernel.errors import (
    Conflict,
    Denied,
    Exhausted,
    Invalid,
    StationmasterError,
    Unauthenticated,
)
from stationmaster.kernel.principal import Principal
from stationmaster.limits import Kind
from stationmaster.sessions.runs.files import Upload

log = structlog.get_logger(__name__)

POLL_S = 5.0  # how late an event comes whose wake-up was lost
_MAX_TOLD = 3  # of a frame's faults
# What each frame counts as. A chat is counted by the gateway, with its tokens.
_KINDS: dict[str, Kind] = {
    "agentic_task": "tasks",
    "start_task": "tasks",
    "resume": "read",
    "follow": "read",
    "cancel": "write",
}


@dataclass(frozen=True, slots=True)
class SocketLimits:
    """Of a socket: times in seconds, and how many requests it may have under way."""

    authenticate: float = 10.0
    idle: float = 300.0
    lifetime: float = 600.0
    at_once: int = 10


class StreamApp:
    """The ASGI app for the WebSocket."""

    def __init__(
        self,
        services: Services,
        gatekeeper: Gatekeeper,
        *,
        limits: SocketLimits | None = None,
    ) -> None:
        self._services = services
        self._gatekeeper = gatekeeper
        self._places = services.sockets
        self._limits = limits or SocketLimits()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one socket to its end."""
        socket = Socket(scope, receive, send)
        try:
            async with AsyncExitStack() as stack:
                stack.enter_context(self._places.any())
                who = await by_handshake(
                    self._gatekeeper, scope, keyless=not self._services.options.api_key_enabled
                )
                principal = None if who is None else _a_key(await who())
                if principal is not None:
                    await take_place(self._services.limiter, stack, scope, principal)
                await socket.accept(offered(scope))
                talk = _Talk(self, stack, socket, who, principal)
                await talk.run()
        except StationmasterError as error:
            answer = problems.respond(error, request_id_of(scope))
            await socket.refuse(answer.status_code, list(answer.raw_headers), bytes(answer.body))
        except ClosedError:
            return


class _Talk:
    """One accepted socket."""

    def __init__(
        self,
        app: StreamApp,
        stack: AsyncExitStack,
        socket: Socket,
        who: Who | None,
        principal: Principal | None,
    ) -> None:
        """`who` asks anew what `principal` was told at the handshake, if it said so."""
        self._services = app._services
        self._gatekeeper = app._gatekeeper
        self._limits = app._limits
        self._stack = stack
        self._socket = socket
        self._scope = socket.scope
        self._ask = who
        self._key_id = None if principal is None else principal.key_id
        self._work: dict[asyncio.Task[None], str | None] = {}
        self._loop = asyncio.get_running_loop()
        self._heard = self._loop.time()

    async def run(self) -> None:
        """Read and answer until one side ends it."""
        try:
            _, (code, reason) = await race(
                self._read(), self._grow_old(), self._grow_idle(), self._stop()
            )
        except ClosedError as closed:
            code, reason = closed.code, closed.reason
        except StalledError:
            log.info("A socket's client has stopped reading; it is closed.")
            code, reason = None, ""
        finally:
            for task in self._work:
                task.cancel()
            await asyncio.gather(*self._work, return_exceptions=True)
        if code is not None:
            await self._socket.close(code, reason)

    async def _grow_old(self) -> tuple[Close, str]:
        await asyncio.sleep(self._limits.lifetime)
        return Close.TOO_OLD, "The socket is open for too long; open another and resume."

    async def _grow_idle(self) -> tuple[Close, str]:
        """Time passes only while nothing is under way."""
        while True:
            bound = self._limits.authenticate if self._key_id is None else self._limits.idle
            left = self._heard + bound - self._loop.time()
            if left <= 0 and not self._work:
                if self._key_id is None:
                    return Close.UNAUTHENTICATED, "No API key came in time."
                return Close.IDLE, "Nothing was asked for in a long time."
            await asyncio.sleep(min(max(left, 0.05), 1.0))

    async def _stop(self) -> tuple[Close, str]:
        await self._services.stopping.wait()
        if self._work:
            # What is written down by now still goes out: runs have ended before this.
            await asyncio.wait(self._work, timeout=POLL_S)
        return Close.GOING_AWAY, "The server is stopping."

    # --- frames in ----------------------------------------------------------------------------

    async def _read(self) -> tuple[Close, str]:
        while True:
            request_id: str | None = None
            try:
                value = await self._socket.read()
                self._heard = self._loop.time()
                request_id = _id_of(value)
                frame = _frame(value)
                principal = await self._who(frame)
                if (kind := _KINDS.get(frame.type)) is not None:
                    await admit(self._services.limiter, self._scope, principal, kind)
                await self._begin(principal, frame)
            except StationmasterError as error:
                await self._socket.write(error_frame(error, **_named(request_id)))
                if self._key_id is None:
                    return Close.UNAUTHENTICATED, "The first frame must carry a valid API key."
                if isinstance(error, Unauthenticated):
                    return Close.UNAUTHENTICATED, "The API key is not valid any more."

    async def _who(self, frame: Frame) -> Principal:
        """Who asks, anew for each frame: a key may have been revoked meanwhile."""
        given = getattr(frame, "api_key", None)
        if given is not None:
            ask = partial(self._gatekeeper, with_key(self._scope, given))
            principal = _a_key(await ask())
            if self._key_id is None:
                await take_place(self._services.limiter, self._stack, self._scope, principal)
                self._ask, self._key_id = ask, principal.key_id
            elif principal.key_id != self._key_id:
                raise Denied(
                    "The socket is another key's; open one of its own.",
                    code="conflicting_credentials",
                    param="api_key",
                )
            return principal
        if self._ask is None:
            raise Unauthenticated("The first frame must carry `api_key`.")
        return _a_key(await self._ask())

    async def _begin(self, principal: Principal, frame: Frame) -> None:
        match frame:
            case PingFrame():
                await self._socket.write({"type": "pong", **_named(frame.id)})
            case AuthFrame():
                await self._socket.write({"type": "authenticated", **_named(frame.id)})
            case CancelFrame():
                await self._services.runs.cancel(principal, frame.task_id)
                told = {"type": "cancelling", "task_id": frame.task_id}
                await self._socket.write({**told, **_named(frame.id)})
            case ChatFrame():
                check_project(frame.project_id, principal)
                self._spawn(frame.id, self._chat(principal, frame))
            case ResumeFrame():
                after = frame.after
                await self._services.runs.events(principal, frame.task_id, after=after, limit=1)
                self._spawn(frame.id, self._follow(principal, frame.task_id, after, frame.id))
            case FollowFrame():
                start = await start_of(self._services, principal, frame.session_id, frame.after)
                self._spawn(frame.id, self._session(principal, frame, start))
            case TaskFrame():
                self._spawn(frame.id, self._task(principal, frame))

    def _spawn(self, request_id: str | None, work: Coroutine[Any, Any, None]) -> None:
        if len(self._work) >= self._limits.at_once:
            work.close()
            raise Exhausted(
                f"The socket has {self._limits.at_once} requests under way already.",
                code="too_many_requests_on_socket",
                retry_after=1.0,
            )
        if request_id is not None and request_id in self._work.values():
            work.close()
            raise Conflict("A request with this id is under way.", code="id_in_use", param="id")
        task = asyncio.create_task(self._guarded(request_id, work), name="socket-request")
        self._work[task] = request_id
        task.add_done_callback(self._over)

    def _over(self, task: "asyncio.Task[None]") -> None:
        self._work.pop(task, None)
        self._heard = self._loop.time()

    async def _guarded(self, request_id: str | None, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except StationmasterError as error:
            await self._tell(error_frame(error, **_named(request_id)))
        except (ClosedError, StalledError):
            return  # the reader notices by itself
        except Exception:
            log.exception("A socket's request failed in this server.")
            told = StationmasterError("Something went wrong in this server.")
            await self._tell(error_frame(told, **_named(request_id)))

    async def _tell(self, frame: dict[str, Any]) -> None:
        try:
            await self._socket.write(frame)
        except (ClosedError, StalledError):
            return

    # --- requests -----------------------------------------------------------------------------

    async def _chat(self, principal: Principal, frame: ChatFrame) -> None:
        address = address_of(self._scope)
        made = chat_frames(self._services.gateway, principal, frame, address=address)
        async with aclosing(made) as frames:
            async for told in frames:
                await self._socket.write({**told, **_named(frame.id)})

    async def _session(self, principal: Principal, frame: FollowFrame, after: int) -> None:
        told = {"type": "following", "session_id": frame.session_id, "seq": after}
        await self._socket.write({**told, **_named(frame.id)})
        made = session_frames(self._services, principal, frame.session_id, after, idle=POLL_S)
        async with aclosing(made) as frames:
            async for told in frames:
                await self._socket.write({**told, **_named(frame.id)})

    async def _task(self, principal: Principal, frame: TaskFrame) -> None:
        options = options_of(frame, principal, self._services.gateway)
        run = await self._services.runs.start(principal, options, Upload(files=files_of(frame)))
        told = {"type": "accepted", "task_id": run.id, "session_id": run.session_id}
        try:
            await self._socket.write({**told, **_named(frame.id)})
            await self._follow(principal, run.id, 0, frame.id)
        except (ClosedError, StalledError, asyncio.CancelledError):
            # Not at the server's own stop: its runs end by its rules.
            if frame.on_disconnect == "cancel" and not self._services.stopping.is_set():
                await asyncio.shield(self._services.runs.cancel(principal, run.id))
            raise

    async def _follow(
        self, principal: Principal, run_id: str, after: int, request_id: str | None
    ) -> None:
        """Tell a task's events until it has ended, and then how."""
        rendered = TaskFrames(run_id)
        runs, ended = self._services.runs, False
        while not ended:
            # A reader that has fallen behind is let go by the log, and comes back by its cursor.
            async with aclosing(runs.follow(principal, run_id, after=after, idle=POLL_S)) as items:
                async for item in items:
                    frame = None
                    if isinstance(item, Event):
                        after, frame = item.seq, rendered.of_event(item)
                    elif isinstance(item, Live):
                        frame = rendered.of_live(item)
                    if frame is not None:
                        await self._socket.write({**frame, **_named(request_id)})
            ended = (await runs.get(principal, run_id)).state.finished
        run, place = await runs.place(principal, run_id)
        await self._socket.write({**result_frame(run, place), **_named(request_id)})


def _a_key(principal: Principal) -> Principal:
    if principal.kind == "run":
        raise Unauthenticated("A run's token is for model calls alone.", code="invalid_api_key")
    return principal


def _named(request_id: str | None) -> dict[str, str]:
    return {} if request_id is None else {"id": request_id}


def _id_of(value: Any) -> str | None:
    given = value.get("id") if isinstance(value, dict) else None
    return given[:64] if isinstance(given, str) else None


def _frame(value: Any) -> Frame:
    kind = value.get("type") if isinstance(value, dict) else None
    shape = FRAMES.get(kind) if isinstance(kind, str) else None
    if shape is None:
        known = ", ".join(FRAMES)
        raise Invalid(f"A frame is an object whose type is one of {known}.", param="type")
    try:
        return shape.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        told = "; ".join(
            f"{'.'.join(map(str, each['loc']))[:128]}: {each['msg']}" for each in found[:_MAX_TOLD]
        )
        param = ".".join(map(str, found[0]["loc"]))[:128]
        raise Invalid(f"The frame is not valid: {told}", param=param) from None
