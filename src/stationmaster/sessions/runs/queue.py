"""How many runs wait, and that no more are let in than may."""

from dataclasses import dataclass

from sqlalchemy import func, select

from stationmaster.kernel.clock import Millis
from stationmaster.kernel.errors import Unavailable
from stationmaster.sessions.runs.priority import LEVELS
from stationmaster.sessions.runs.state import UNFINISHED
from stationmaster.sessions.tables import admission, runs
from stationmaster.storage import Transaction

RETRY_QUEUE_S = 5.0


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """How many runs wait and how many a worker has, on all workers.

    `running` counts those that wait for somebody, too.
    """

    queued: int
    running: int


def depth(tx: Transaction) -> QueueDepth:
    """How many runs wait and work now."""
    rows = tx.execute(
        select(runs.c.state, func.count().label("number"))
        .where(runs.c.state.in_(UNFINISHED))
        .group_by(runs.c.state)
    )
    counts = {row.state: row.number for row in rows}
    return QueueDepth(counts.get("queued", 0), counts.get("running", 0))


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many runs of a priority wait, and when the one was asked for that has waited longest."""

    queued: int = 0
    since: Millis | None = None

    def seconds(self, now: Millis) -> float:
        """For how long that one has; 0 where none waits, and where the clock has stepped back."""
        return 0.0 if self.since is None else max(0, now - self.since) / 1000


def waiting(tx: Transaction) -> dict[str, Waiting]:
    """What waits, by priority; each of them is named."""
    rows = tx.execute(
        select(
            runs.c.priority, func.count().label("number"), func.min(runs.c.queued_at).label("at")
        )
        .where(runs.c.state == "queued")
        .group_by(runs.c.priority)
    )
    found = {row.priority: Waiting(row.number, row.at) for row in rows}
    return {name: found.get(level, Waiting()) for name, level in LEVELS.items()}


def check_room(tx: Transaction, most: int) -> None:
    """Raise `Unavailable` where the queue is full. Others that ask wait for this transaction.

    Counting alone is not enough: two that count at once each find room for one.
    """
    one_at_a_time(tx)
    if depth(tx).queued >= most:
        raise queue_full()


def one_at_a_time(tx: Transaction) -> None:
    """Let no other transaction count what is unfinished until this one has ended."""
    tx.execute(select(admission.c.id).with_for_update())


def queue_full() -> Unavailable:
    """The error for a run that is not let in."""
    return Unavailable(
        "All workers are busy and the queue is full.", code="queue_full", retry_after=RETRY_QUEUE_S
    )
