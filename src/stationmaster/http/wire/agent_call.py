"""A turn of an agent's session, watched by whoever asked for it as for a model's answer."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

from stationmaster.events import Live, Overflow
from stationmaster.http.services import Services
from stationmaster.http.streams import race
from stationmaster.kernel.errors import (
    BudgetExceeded,
    Conflict,
    StationmasterError,
    Unavailable,
    Upstream,
    UpstreamTimeout,
)
from stationmaster.kernel.money import MicroDollars
from stationmaster.kernel.principal import Principal
from stationmaster.sessions.inputs import Interrupt, UserMessage
from stationmaster.sessions.runs.state import ENDED
from stationmaster.sessions.session import Session, SessionEvent, SessionRequest

POLL_S = 5.0  # how late an event comes whose wake-up was lost
BETWEEN = "\n\n"
"""Between two things that an agent says, with work in between."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a turn ended. `usage` has the run's tokens by class."""

    usage: dict[str, int]
    cost: MicroDollars


class AgentCall:
    """One turn, in a session of its own. Whoever has one must close it, whatever happens."""

    def __init__(self, services: Services, principal: Principal, session: Session) -> None:
        self._services = services
        self._principal = principal
        self._session = session
        self._said = Said()
        self.outcome: Outcome | None = None

    @classmethod
    async def begin(
        cls,
        services: Services,
        principal: Principal,
        agent_id: str,
        content: list[dict[str, Any]],
        tags: tuple[str, ...],
    ) -> "AgentCall":
        """Make the session and begin its turn, or neither. Raises what both raise."""
        wanted = SessionRequest(agent=agent_id, title="A chat", on_crash="interrupt")
        message = UserMessage(content, tags=tags)
        session = await services.sessions.create(principal, wanted, [message])
        return cls(services, principal, session)

    @property
    def session_id(self) -> str:
        """The session's, whose events tell all that the agent does."""
        return self._session.id

    async def pieces(self) -> AsyncGenerator[str, None]:
        """The agent's words as they come, to the turn's end; then `outcome` is known.

        Raises `BudgetExceeded`, `UpstreamTimeout`, `Conflict` where somebody interrupted it,
        `Unavailable` where the server stops, and `Upstream` for any other failure.
        """
        after = 0
        while self.outcome is None:
            items = self._services.sessions.follow(
                self._principal, self.session_id, after=after, idle=POLL_S
            )
            async with aclosing(items):
                while True:
                    item = await self._next(items)
                    if isinstance(item, SessionEvent):
                        after = item.event.seq
                        if item.event.type == ENDED:
                            self._end(item.event.data)
                            return
                    elif isinstance(item, Overflow):
                        self._said.behind()
                        break
                    if piece := self._said.piece(item):
                        yield piece

    async def _next(self, items: AsyncGenerator[Any, None]) -> Any:
        stopping = self._services.stopping
        if stopping.is_set():
            raise Unavailable("The server is stopping.", code="shutting_down")
        place, item = await race(anext(items), stopping.wait())
        if place == 1:
            raise Unavailable("The server is stopping.", code="shutting_down")
        return item

    def _end(self, data: dict[str, Any]) -> None:
        error = data.get("error") or {}
        message = str(error.get("message") or "")
        match data["state"]:
            case "completed":
                self.outcome = Outcome(data["usage"], data["cost"])
                return
            case "cost_exceeded":
                raise BudgetExceeded(message or "A budget does not cover the agent's next step.")
            case "timed_out":
                raise UpstreamTimeout(message or "The agent took too long.")
            case "cancelled" | "interrupted":
                raise Conflict(message or "The agent was interrupted.", code="interrupted")
        raise Upstream(
            message or "The agent failed.", code=str(error.get("code") or "agent_failed")
        )

    async def aclose(self) -> None:
        """End the turn where it still runs, and put the session away."""
        await asyncio.shield(self._put_away())

    async def _put_away(self) -> None:
        sessions = self._services.sessions
        with suppress(StationmasterError):
            if self.outcome is None:
                # Without a turn at work it changes nothing.
                await sessions.send(self._principal, self.session_id, [Interrupt()])
            await sessions.archive(self._principal, self.session_id)


class Said:
    """Puts together what a client has seen of the agent's words, and what it has not."""

    def __init__(self) -> None:
        self._message: str | None = None  # whose pieces come now
        self._seen = ""
        self._told: set[str] = set()
        self._any = False
        self._behind = False

    def behind(self) -> None:
        """Pieces are missing from now on, up to the next whole message."""
        self._behind = True

    def piece(self, item: SessionEvent | Live | None) -> str:
        """The words that an item adds."""
        if isinstance(item, Live):
            data = item.data
            if data.get("kind") != "text" or self._behind or data.get("event_id") in self._told:
                return ""
            return self._add(str(data.get("event_id")), data["text"])
        if item is None or item.event.type != "agent.message":
            return ""
        if item.event.data.get("parent_tool_use_id") is not None:
            return ""
        whole = "".join(block.get("text", "") for block in item.event.data["content"])
        seen = self._seen if item.id == self._message else ""
        rest = self._add(item.id, whole[len(seen) :]) if whole.startswith(seen) else ""
        self._told.add(item.id)
        self._message, self._seen, self._behind = None, "", False
        return rest

    def _add(self, message: str, text: str) -> str:
        if not text:
            return ""
        begins = message != self._message and self._any
        if message != self._message:
            self._message, self._seen = message, ""
        self._seen += text
        self._any = True
        return BETWEEN + text if begins else text
