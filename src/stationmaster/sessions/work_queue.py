"""The work of self-hosted environments, inside its callers' transactions.

queued ──poll, ack──▶ starting ──heartbeat──▶ active ──stop──▶ stopping ──▶ stopped
   ▲                     │                       │                │
   └──── the lease is over: another worker may take it ────┘       └─ it is over: stopped

A piece of work is one session's, for as long as one worker serves it. Whoever changes one that a
worker has, locks the session's row first.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Row, insert, select, update

from stationmaster.access import WorkTokens
from stationmaster.kernel.clock import Clock, Millis
from stationmaster.kernel.ids import new_id
from stationmaster.live.bus import Bus
from stationmaster.sessions.calls import WORKER_LOST, answer, failed, forwarded_calls
from stationmaster.sessions.record import SessionRecords
from stationmaster.sessions.session import Session
from stationmaster.sessions.tables import work
from stationmaster.sessions.topics import control_topic, work_topic
from stationmaster.storage import Transaction

HELD = ("starting", "active", "stopping")


@dataclass(frozen=True, slots=True)
class WorkItem:
    """A piece of work, as the API has it. `ttl` is how long a heartbeat is good for, in seconds.

    `heartbeat_at` is of the worker that has it now, None until it has sent one.
    """

    id: str
    environment_id: str
    session_id: str
    metadata: dict[str, str]
    state: str
    created_at: Millis
    ttl: int
    acknowledged_at: Millis | None = None
    started_at: Millis | None = None
    heartbeat_at: Millis | None = None
    stop_requested_at: Millis | None = None
    stopped_at: Millis | None = None


class WorkQueue:
    """Puts work into the queue, and takes it from workers that are gone."""

    def __init__(
        self,
        *,
        records: SessionRecords,
        tokens: WorkTokens,
        bus: Bus,
        clock: Clock,
        lease_time: float,
    ) -> None:
        """`lease_time` is in seconds: how long a worker keeps its work without a heartbeat."""
        self._records = records
        self._tokens = tokens
        self._bus = bus
        self._clock = clock
        self._ttl = round(lease_time)

    def ensure(self, tx: Transaction, session: Session) -> None:
        """See that a self-hosted session has work that is not stopped. Its row is locked, or new.

        Others are left alone.
        """
        if not session.self_hosted:
            return
        unfinished = select(work.c.id).where(
            work.c.session_id == session.id, work.c.state != "stopped"
        )
        if tx.execute(unfinished).first() is not None:
            return
        now = self._clock.now()
        tx.execute(
            insert(work),
            {
                "id": new_id("work"),
                "environment_id": session.environment_id,
                "session_id": session.id,
                "metadata": {},
                "state": "queued",
                "created_at": now,
                "queued_at": now,
                "ttl": self._ttl,
            },
        )
        self._ring(tx, session)

    def lapse(self, tx: Transaction, row: Row[Any]) -> None:
        """Take a piece of work from a worker whose lease is over. Its session's row is locked.

        What the worker may have begun is answered as not known: no other worker does it again.
        """
        self._tokens.revoke(tx, row.id)
        self._abandon(tx, row.session_id)
        if row.state == "stopping":
            self._stopped(tx, row)
            return
        values = {"state": "queued", "queued_at": self._clock.now()}
        self._put(tx, row.id, **values, **_NOBODYS)
        self._ring(tx, self._records.get(tx, row.session_id))

    def stop(self, tx: Transaction, row: Row[Any], *, force: bool) -> None:
        """Stop it, or with a worker at it ask the worker to. Its session's row is locked.

        Where a turn of the session is at work, or a message waits, there is new work at once.
        """
        now = self._clock.now()
        if row.state != "queued" and not force:
            if row.state != "stopping":
                self._put(tx, row.id, state="stopping", stop_requested_at=now)
            return
        self._tokens.revoke(tx, row.id)
        if row.state != "queued":
            self._abandon(tx, row.session_id)
        self._stopped(tx, row)

    def end(self, tx: Transaction, session_id: str) -> None:
        """The session has no more turns: a worker that has it hears so at its next heartbeat."""
        unfinished = select(work).where(work.c.session_id == session_id, work.c.state != "stopped")
        row = tx.execute(unfinished.with_for_update()).first()
        if row is not None:
            self.stop(tx, row, force=False)

    def _stopped(self, tx: Transaction, row: Row[Any]) -> None:
        now = self._clock.now()
        asked = row.stop_requested_at or now
        self._put(tx, row.id, state="stopped", stop_requested_at=asked, stopped_at=now)
        session = self._records.get(tx, row.session_id)
        if session.state.run_id is not None:
            self.ensure(tx, session)

    def _abandon(self, tx: Transaction, session_id: str) -> None:
        for event_id in forwarded_calls(tx, session_id):
            session = self._records.get(tx, session_id)
            now = self._clock.now()
            run_id, new = answer(
                tx, session, event_id, "tool", failed(WORKER_LOST), by=None, now=now
            )
            self._records.append(tx, session_id, new)
            tx.on_commit(partial(self._bus.publish, control_topic(run_id), "input"))

    def _ring(self, tx: Transaction, session: Session) -> None:
        topic = work_topic(str(session.environment_id))
        tx.on_commit(lambda: self._bus.publish(topic, "work"))

    @staticmethod
    def _put(tx: Transaction, work_id: str, **values: Any) -> None:
        tx.execute(update(work).where(work.c.id == work_id).values(**values))


_NOBODYS = {
    "polled_at": None,
    "acknowledged_at": None,
    "started_at": None,
    "heartbeat_at": None,
    "leased_until": None,
}


def work_of(row: Row[Any]) -> WorkItem:
    """A piece of work from its row."""
    return WorkItem(
        id=row.id,
        environment_id=row.environment_id,
        session_id=row.session_id,
        metadata=row.metadata,
        state=row.state,
        created_at=row.created_at,
        ttl=row.ttl,
        acknowledged_at=row.acknowledged_at,
        started_at=row.started_at,
        heartbeat_at=row.heartbeat_at,
        stop_requested_at=row.stop_requested_at,
        stopped_at=row.stopped_at,
    )
