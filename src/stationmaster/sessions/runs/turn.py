"""What a turn begins with: what is said to the agent, and what it must be able to do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from stationmaster.events import Event
from stationmaster.events.pages import page
from stationmaster.kernel.ids import new_id
from stationmaster.sessions.runs import state as states
from stationmaster.sessions.runs.claims import Claim
from stationmaster.sessions.runs.journal import Journal
from stationmaster.sessions.runs.recovery import (
    UNKNOWN,
    Recovery,
    is_said,
    look_back,
    note,
    text_of,
    unseen,
)
from stationmaster.sessions.runs.seats import Seats, Wanted, wanted_of
from stationmaster.storage import Database


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn that is about to begin. `recovery` is set where an earlier attempt was cut."""

    content: list[dict[str, Any]]
    wanted: Wanted = field(default_factory=Wanted)
    recovery: Recovery | None = None

    def write_down(self, journal: Journal) -> None:
        """Say in the book what has become of the calls of the earlier attempt."""
        if self.recovery is None:
            return
        unknown = self.recovery.unknown
        journal.add(states.RESUMED, unknown=[event.data["id"] for event in unknown])
        for event in unknown:
            self._write_outcome(journal, event, "unknown", UNKNOWN)
        for event, reason in self.recovery.denied:
            self._write_outcome(journal, event, "denied", reason)

    def _write_outcome(self, journal: Journal, call: Event, outcome: str, words: str) -> None:
        assert self.recovery is not None
        if call.data["id"] in self.recovery.told:
            return
        mcp = call.type == "agent.mcp_tool_use"
        journal.add(
            "agent.mcp_tool_result" if mcp else "agent.tool_result",
            stream=call.stream_id if call.stream_id.startswith("sthr_") else None,
            id=new_id("sevt"),
            tool_use_event_id=call.data["id"],
            tool_use_id=call.data["tool_use_id"],
            content=words,
            is_error=True,
            outcome=outcome,
        )


async def plan_turn(claim: Claim, database: Database, seats: Seats) -> Turn:
    """Look at what is wanted, and at what earlier attempts have left of it."""
    plan, session = claim.run.plan, claim.session
    if session.kind == "task":
        content = [{"type": "text", "text": plan.prompt}]
        return Turn(content, Wanted(output_schema=plan.output_schema))
    [message] = await database.read(lambda tx: page(tx, session.id, (plan.message_seq or 1) - 1, 1))
    content, history = message.data["content"], session.state.history
    wanted = wanted_of(session, message.data.get("output_schema"))
    if claim.run.state.history is None:  # the first attempt that comes so far
        if history is None or session.state.position is not None:
            return Turn(content, wanted)
        # The turn before was cut: where this one begins must be known before it does.
        entries = await seats.sink(session).load(history, None)
        if entries is None:
            return Turn(content, replace(wanted, resume=None))
        return Turn(content, replace(wanted, position=_last(entries)))
    recovery = await database.read(lambda tx: look_back(tx, session, claim.run))
    entries = await seats.sink(session).load(history, None) if history is not None else None
    said = is_said(entries or [], session.state.position, text_of(content))
    # A history may be behind the book: what has been called is told even to who knows nothing.
    missing = unseen(recovery, entries or [], session.id)
    if said or recovery.unknown or recovery.denied or missing:
        told = note(recovery, missing)
        content = told if said else [*content, *told]
    if entries is None and session.state.position is None:
        # The agent was lost before it wrote anything that was kept: a history begins now. Under an
        # id of its own, for what it has written itself may still lie in its home.
        wanted = replace(wanted, resume=None)
    return Turn(content, wanted, recovery)


def _last(entries: Sequence[Mapping[str, Any]]) -> str | None:
    """The id of the last entry that has one."""
    return next((str(each["uuid"]) for each in reversed(entries) if each.get("uuid")), None)
