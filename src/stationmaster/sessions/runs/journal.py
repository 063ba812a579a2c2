"""What a running run appends, batched: whatever has come up while the last batch was written."""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
from msgspec.json import encode

from stationmaster.events import EventLog, Live, NewEvent
from stationmaster.events.pages import page
from stationmaster.kernel.clock import Clock
from stationmaster.kernel.errors import Unavailable
from stationmaster.kernel.text import scrub
from stationmaster.sessions.calls import Asked, open_calls
from stationmaster.sessions.runs.claims import Claim
from stationmaster.sessions.runs.record import Records
from stationmaster.sessions.state import CHANGING
from stationmaster.sessions.threads import Opened, close_thread, created, ended, open_thread
from stationmaster.storage import Database, Transaction

log = structlog.get_logger(__name__)

MAX_WAITING = 500  # events; beyond it the agent is read no further until they are written
RETRY_S = 0.5


@dataclass(frozen=True, slots=True)
class _Entry:
    """One event for a stream, and what begins or ends with it: a thread, a wait for somebody."""

    stream: str
    event: NewEvent
    opens: Opened | None = None
    closes: Opened | None = None
    asks: Asked | None = None


class Journal:
    """Appends the events of one run under its epoch, to its session's stream and its threads'."""

    def __init__(
        self, database: Database, events: EventLog, records: Records, claim: Claim, clock: Clock
    ) -> None:
        self._database = database
        self._events = events
        self._records = records
        self._clock = clock
        self._session = claim.session
        self._run_id = claim.run.id
        self._session_id = claim.run.session_id
        self._epoch = claim.epoch
        self._waiting: deque[_Entry] = deque()
        self._news = asyncio.Event()
        self._written = asyncio.Event()
        self._written.set()
        self._broken = False
        # Each stream's end after the last batch known to be written.
        self._last = {self._session_id: claim.since}

    def add(
        self,
        event_type: str,
        *,
        stream: str | None = None,
        asks: Asked | None = None,
        **data: object,
    ) -> None:
        """Append an event soon, to a thread's `stream` or the session's. Never blocks: see `room`.

        A thread's stream takes nothing that may change a session or a run. With `asks`, the call
        can be answered from the moment that its event can be seen.
        """
        event = NewEvent(event_type, scrub({"run_id": self._run_id, **data}))
        self._put([_Entry(stream or self._session_id, event, asks=asks)])

    def open_thread(self, thread: Opened) -> None:
        """Make a thread soon, and say so in the session's stream."""
        first, second = created(self._run_id, thread)
        self._put(
            [
                _Entry(self._session_id, _clean(first), opens=thread),
                _Entry(self._session_id, _clean(second)),
            ]
        )

    def close_thread(self, thread: Opened) -> None:
        """Say that a thread has done its work."""
        event = ended(self._run_id, thread.id, thread.agent_name)
        self._put([_Entry(self._session_id, _clean(event), closes=thread)])

    def _put(self, entries: Iterable[_Entry]) -> None:
        self._waiting.extend(entries)
        if not self._broken:
            self._written.clear()
        self._news.set()

    def pass_on(self, event_type: str, **data: object) -> None:
        """Show something to those who watch now, without keeping it."""
        self._events.pass_on(
            self._session_id, Live(event_type, scrub({"run_id": self._run_id, **data}))
        )

    async def room(self) -> None:
        """Wait while too much is waiting to be written."""
        if len(self._waiting) >= MAX_WAITING:
            await self._written.wait()

    async def flush(self) -> None:
        """Wait until everything added so far is durable. `run` must be at work."""
        await self._written.wait()

    async def run(self) -> None:
        """Write until cancelled. Raises `Fenced` where another worker has taken the run over.

        While the database is away it tries again: the run's lease ends that, not this. After any
        other error nothing more is written, and `flush` and `room` no longer wait.
        """
        try:
            await self._write_on()
        finally:
            self._broken = True
            self._written.set()

    async def _write_on(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            batch, unsure = list(self._waiting), False
            while batch:
                try:
                    self._last |= await self._database.write(
                        partial(self._append, batch=batch, unsure=unsure)
                    )
                except Unavailable as error:
                    log.warning("Events wait for the database.", reason=error.error_code)
                    unsure = unsure or error.error_code == "commit_unknown"
                    await asyncio.sleep(RETRY_S)
                    continue
                unsure = False
                for _ in batch:
                    self._waiting.popleft()
                batch = list(self._waiting)
            self._written.set()

    def _append(self, tx: Transaction, *, batch: list[_Entry], unsure: bool) -> dict[str, int]:
        """Append and return the streams' ends; if `unsure`, unless that has been done already."""
        streams = {entry.stream for entry in batch}
        if not (unsure and self._stands(tx, batch[0])):
            self._write(tx, batch)
        return {stream: self._events.head_in(tx, stream) for stream in sorted(streams)}

    def _write(self, tx: Transaction, batch: Sequence[_Entry]) -> None:
        mine = [entry.event for entry in batch if entry.stream == self._session_id]
        if any(event.type.startswith("run.") or event.type in CHANGING for event in mine):
            run = self._records.lock(tx, self._run_id)
            self._records.apply(tx, run, mine, epoch=self._epoch)
        elif mine:
            self._events.append(tx, self._session_id, mine, epoch=self._epoch)
        else:
            self._events.check(tx, self._session_id, self._epoch)
        now = self._clock.now()
        asked = [entry.asks for entry in batch if entry.asks is not None]
        open_calls(tx, self._session, self._run_id, asked, epoch=self._epoch, now=now)
        for entry in batch:
            if entry.opens is not None:
                open_thread(tx, self._events, self._session, self._run_id, entry.opens, now=now)
            if entry.closes is not None:
                close_thread(tx, entry.closes.id, now)
        for stream in sorted({entry.stream for entry in batch} - {self._session_id}):
            theirs = [entry.event for entry in batch if entry.stream == stream]
            self._events.append(tx, stream, theirs)

    def _stands(self, tx: Transaction, entry: _Entry) -> bool:
        # Since the last batch nobody else has written what only this run's worker writes.
        wanted = encode(entry.event.data)
        after = self._last.get(entry.stream, 0)
        while since := page(tx, entry.stream, after, MAX_WAITING):
            after = since[-1].seq
            if any(e.type == entry.event.type and encode(e.data) == wanted for e in since):
                return True
        return False


def _clean(event: NewEvent) -> NewEvent:
    data: Any = scrub(event.data)
    return NewEvent(event.type, data, event.version)
