"""Talking to a session, and looking at what became of it."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import func, select

from stationmaster.agents.scripted import ScriptedAgent, Step
from stationmaster.budgets.tables import holds
from stationmaster.events import Event
from stationmaster.events.pages import page
from stationmaster.kernel.principal import Principal
from stationmaster.sessions.inputs import Input, UserMessage
from stationmaster.sessions.record import SessionRecords
from stationmaster.sessions.runs.record import from_row
from stationmaster.sessions.runs.state import fold as fold_run
from stationmaster.sessions.session import Session, SessionEvent, SessionRequest
from stationmaster.sessions.state import fold
from stationmaster.sessions.tables import runs
from stationmaster.storage import Transaction
from tests.support.core import ALICE, Core

WAIT_S = 30.0
TOOLS = {"type": "agent_toolset_20260401"}
ASKING = {
    "type": "agent_toolset_20260401",
    "default_config": {"permission_policy": {"type": "always_ask"}},
}


def say(text: str, **more: Any) -> UserMessage:
    """A message of one text."""
    return UserMessage([{"type": "text", "text": text}], **more)


def agent_fields(*tools: Any, **more: Any) -> dict[str, Any]:
    """A definition's fields."""
    return {"name": "Helper", "model": "scripted-model", "tools": list(tools or (TOOLS,)), **more}


class Talk:
    """One server's sessions, through its verbs."""

    def __init__(self, core: Core, by: Principal = ALICE) -> None:
        self.core = core
        self.by = by

    def script(self, *steps: Step) -> None:
        """What the agent does in every turn."""
        assert isinstance(self.core.agent, ScriptedAgent)
        self.core.agent.script = steps

    async def create(self, *first: Input, tools: Sequence[Any] = (), **more: Any) -> Session:
        """Make a session of an agent of its own."""
        given = {name: more.pop(name) for name in ("system", "multiagent") if name in more}
        agent = {"type": "inline", **agent_fields(*tools, **given)}
        return await self.core.sessions.create(self.by, SessionRequest(agent, **more), first)

    async def send(self, session: Session, *inputs: Input) -> Sequence[SessionEvent]:
        """Send to it."""
        return await self.core.sessions.send(self.by, session.id, inputs)

    async def book(self, session: Session) -> list[Event]:
        """All events of its stream."""
        return await self.core.events.read(session.id, limit=100_000)

    async def types(self, session: Session) -> list[str]:
        """Their types."""
        return [event.type for event in await self.book(session)]

    async def now(self, session: Session) -> Session:
        """The session as it is, after checking that its books agree."""
        return (await checked(self.core, session.id))[0]

    async def until(self, session: Session, true: Callable[[list[Event]], bool]) -> list[Event]:
        """Wait until something is true of its book."""
        async with asyncio.timeout(WAIT_S):
            while not true(book := await self.book(session)):
                await asyncio.sleep(0.01)
        return book

    async def ended(self, session: Session, turns: int = 1) -> Session:
        """Wait for the end of so many turns."""
        await self.until(
            session, lambda book: sum(each.type == "run.ended" for each in book) >= turns
        )
        return await self.now(session)

    async def asked(self, session: Session, calls: int = 1) -> list[str]:
        """Wait until it requires so many answers; the ids of the events."""

        def reasons(book: list[Event]) -> list[str]:
            stops = [each for each in book if each.type.startswith("session.status")]
            reason = stops[-1].data.get("stop_reason", {}) if stops else {}
            return list(reason.get("event_ids", []))

        return reasons(await self.until(session, lambda book: len(reasons(book)) == calls))


async def checked(core: Core, session_id: str) -> tuple[Session, list[Event]]:
    """A session and its book, after checking that they agree, and its runs with it."""

    def look(tx: Transaction) -> Any:
        rows = tx.execute(select(runs).where(runs.c.session_id == session_id)).all()
        records = SessionRecords(core.events)
        return records.get(tx, session_id), page(tx, session_id, 0, 100_000), rows

    session, book, rows = await core.database.read(look)
    assert fold(session_id, book) == session.state
    assert [event.seq for event in book] == list(range(1, len(book) + 1))
    unfinished = 0
    for row in rows:
        run = from_row(row)
        assert fold_run(run.id, book) == run.state
        ends = [event for event in book if event.type == "run.ended"]
        mine = [event for event in ends if event.data["run_id"] == run.id]
        assert len(mine) == run.state.finished
        unfinished += not run.state.finished
    assert unfinished == (session.state.run_id is not None)
    return session, book


async def nothing_is_held(core: Core) -> None:
    """No hold is open."""
    count = select(func.count()).select_from(holds)
    assert await core.database.read(lambda tx: tx.execute(count).scalar()) == 0
