"""The door of a server that takes one job and ends."""

from collections.abc import Awaitable

from stationmaster.http import problems
from stationmaster.http.wire.exchange import App, Message, Receive, Scope, Send, request_id_of
from stationmaster.kernel.errors import Exhausted
from stationmaster.sessions.runs.one_job import OneJob

RETRY_S = 5.0  # the supervisor has a fresh server up by then

_BEGINS = frozenset({"/api/execute", "/v1/task", "/v1/tasks"})
_BEGINS_BELOW = "/api/stream/"
_REFUSED = 300


class OneJobDoor:
    """Lets one request through that begins a job; refuses the next with 429.

    One that is refused further in has taken nothing. What begins no job passes.
    """

    def __init__(self, app: App, job: OneJob) -> None:
        self._app = app
        self._job = job

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Pass a request on, or refuse it."""
        enter = self._enter if _begins(scope) else self._app
        return enter(scope, receive, send)

    async def _enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not await self._job.enter():
            error = Exhausted(
                "This server has its one job.", code="replica_busy", retry_after=RETRY_S
            )
            request_id = request_id_of(scope)
            await problems.respond(error, request_id)(scope, receive, send)
            return
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = message["status"] < _REFUSED
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            self._job.leave(begun=begun)


def _begins(scope: Scope) -> bool:
    path: str = scope["path"]
    writes = scope["type"] == "http" and scope["method"] == "POST"
    return writes and (path in _BEGINS or path.startswith(_BEGINS_BELOW))
