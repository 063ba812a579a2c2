"""What an agent asks while it works: whether a tool call may happen, and what a client's tool says.

A question is a row and an event, so it outlives this server. The agent waits; an answer that comes
by any server is seen here within the time of a poll.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from math import inf
from time import monotonic
from typing import Any, TypeVar

import structlog
from sqlalchemy import Row

from stationmaster.agents import base as agents
from stationmaster.events import EventLog
from stationmaster.kernel.clock import Clock
from stationmaster.kernel.errors import Conflict, Unavailable
from stationmaster.live.bus import Bus, Subscription
from stationmaster.sessions.calls import (
    EXPIRED,
    Answer,
    Asked,
    answer,
    find_call,
    open_calls,
    refusal,
    requires_action,
    tell,
    waiting,
)
from stationmaster.sessions.rules import Rules
from stationmaster.sessions.runs.claims import Claim
from stationmaster.sessions.runs.journal import Journal
from stationmaster.sessions.runs.patience import Patience
from stationmaster.sessions.runs.record import Records
from stationmaster.sessions.runs.recorder import SessionRecorder
from stationmaster.sessions.runs.slots import Slot
from stationmaster.sessions.topics import control_topic
from stationmaster.storage import Database, Transaction

log = structlog.get_logger(__name__)

T = TypeVar("T")

GATHER_S = 0.02  # an agent's calls of one message come one after another: they are asked at once
POLL_S = 1.0  # how late an answer is seen that another server has taken
LEND_AFTER_S = 5.0  # a client that answers at once must not make its turn queue for a slot again


class Gate:
    """The `Host` of one run's agent. Its tasks are cancelled by the agent when the turn ends."""

    def __init__(
        self,
        claim: Claim,
        *,
        database: Database,
        events: EventLog,
        records: Records,
        journal: Journal,
        recorder: SessionRecorder,
        rules: Rules,
        bus: Bus,
        clock: Clock,
        patience: Patience,
        slot: Slot,
    ) -> None:
        self._claim = claim
        self._database = database
        self._events = events
        self._records = records
        self._journal = journal
        self._recorder = recorder
        self._rules = rules
        self._bus = bus
        self._clock = clock
        self._patience = patience
        self._slot = slot
        self._gathered: list[Asked] = []
        self._asking = asyncio.Lock()

    async def permit(self, call: agents.ToolCall) -> agents.Permission:
        """See `Host`."""
        called = self._recorder.called(call)
        # One that a worker runs is decided on, and asked about, when it is called.
        if called.permission == "allow" or (called.forwarded and called.permission == "ask"):
            # What a crash cuts is then in the book: the agent can be told of it.
            await self._journal.flush()
            return agents.Allow()
        if called.permission == "deny":
            return agents.Deny(refusal(None))
        row = await self._answered(self._recorder.asked(call, called))
        said = row.answer or {}
        if row.state != "allowed":
            return agents.Deny(refusal(said))
        if said.get("always"):
            self._rules.allow_always(called.name)
        return agents.Allow(said.get("input"))

    async def call_tool(self, call: agents.ToolCall) -> agents.ToolAnswer:
        """See `Host`."""
        called = self._recorder.called(call)
        if called.permission == "deny":
            return agents.ToolAnswer(refusal(None), is_error=True)
        row = await self._answered(self._recorder.asked(call, called))
        said = row.answer or {}
        if row.kind == "confirmation":  # nobody has allowed it
            return agents.ToolAnswer(refusal(said), is_error=True)
        if said.get("always"):
            self._rules.allow_always(called.name)
        if called.forwarded:
            self._recorder.told(called)
        return agents.ToolAnswer(said.get("content", []), bool(said.get("is_error")))

    # --- asking and waiting -------------------------------------------------------------------

    async def _answered(self, asked: Asked) -> Row[Any]:
        """The call's row, once it is decided and this run is known to have been told."""
        wake = self._bus.subscribe(control_topic(self._claim.run.id))
        try:
            with self._patience.paused():
                await self._ask(asked)
                row = await self._wait(asked, wake, at_most=LEND_AFTER_S)
                if row.state == "pending":
                    async with self._slot.lent():
                        row = await self._wait(asked, wake)
        finally:
            self._bus.unsubscribe(wake)
        # Only now: until the agent is told, a crash takes nothing of the answer away.
        await self._patiently(partial(self._write, partial(self._tell, asked.event_id)))
        return row

    async def _wait(self, asked: Asked, wake: Subscription, *, at_most: float = inf) -> Row[Any]:
        """The call's row once it is decided, or after so many seconds."""
        until = monotonic() + at_most
        while True:
            row = await self._patiently(partial(self._read, asked.event_id))
            left = until - monotonic()
            if row.state != "pending" or left <= 0:
                return row
            expires_in = (row.expires_at - self._clock.now()) / 1000
            if expires_in <= 0:
                await self._expire(row)
                continue
            await wake.wait(min(POLL_S, expires_in, left))
            wake.reset()

    async def _ask(self, asked: Asked) -> None:
        self._gathered.append(asked)
        await asyncio.sleep(GATHER_S)
        async with self._asking:
            if asked not in self._gathered:
                return  # asked together with another
            together, self._gathered = self._gathered, []
            await self._journal.flush()  # the calls themselves come first
            await self._patiently(partial(self._write, partial(self._open, together)))

    def _open(self, together: list[Asked], tx: Transaction) -> None:
        run = self._records.lock(tx, self._claim.run.id)
        session = self._records.sessions.get(tx, run.session_id)
        now, epoch = self._clock.now(), self._claim.epoch
        self._events.check(tx, run.session_id, epoch)
        # They stand already, but for those that an earlier attempt has asked about.
        open_calls(tx, session, run.id, together, epoch=epoch, now=now)
        if rest := waiting(tx, run.id, epoch):
            self._records.apply(tx, run, [requires_action(run.id, rest)], epoch=epoch)

    async def _expire(self, row: Row[Any]) -> None:
        try:
            await self._patiently(partial(self._write, partial(self._write_expiry, row)))
        except Conflict as conflict:
            if conflict.error_code != "already_answered":
                raise

    def _write_expiry(self, row: Row[Any], tx: Transaction) -> None:
        run = self._records.lock(tx, self._claim.run.id)
        session = self._records.sessions.get(tx, run.session_id)
        given = Answer(
            "expired",
            message=EXPIRED,
            content=None if row.kind == "confirmation" else [{"type": "text", "text": EXPIRED}],
            is_error=row.kind != "confirmation",
        )
        _, new = answer(tx, session, row.event_id, row.kind, given, by=None, now=self._clock.now())
        self._records.apply(tx, run, new, epoch=self._claim.epoch)

    def _tell(self, event_id: str, tx: Transaction) -> None:
        self._events.check(tx, self._claim.run.session_id, self._claim.epoch)
        tell(tx, event_id)

    # --- the database, which may be away for a while ------------------------------------------

    async def _read(self, event_id: str) -> Row[Any]:
        return await self._database.read(lambda tx: find_call(tx, event_id))

    async def _write(self, verb: Callable[[Transaction], None]) -> None:
        await self._database.write(verb)

    @staticmethod
    async def _patiently(work: Callable[[], Awaitable[T]]) -> T:
        """Try until the database is there. Each of these may be done twice."""
        while True:
            try:
                return await work()
            except Unavailable as error:
                log.warning("An approval waits for the database.", reason=error.error_code)
                await asyncio.sleep(POLL_S)
