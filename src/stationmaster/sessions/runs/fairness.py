"""Whose turn it is, of the runs that wait.

    organisation   with the fewest runs at work, then the one served longest ago
      priority     high before normal before low; each `ageing` of waiting counts as one higher
        key        with the fewest runs at work, then the one served longest ago
          run      the oldest

A run that waits for somebody is not at work: it takes nothing from others. Nobody starves: an old
run counts as high, and among those of one priority every key that is served goes behind the rest.

What a claim costs does not grow with the queue. Distinct organisations and keys are found by hops
through a partial index, at most `WINDOW` of them, going round from the one that was served last:
where more wait, each comes into the window in its turn.
"""

from collections.abc import Iterator
from heapq import nsmallest
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    Integer,
    Row,
    ScalarSelect,
    Select,
    String,
    bindparam,
    func,
    literal,
    literal_column,
    select,
    union_all,
)

from stationmaster.kernel.clock import Millis
from stationmaster.sessions.runs.priority import HIGHEST, LEVELS
from stationmaster.sessions.tables import runs, sessions
from stationmaster.storage import Transaction

WINDOW = 32  # organisations, and keys of one priority, looked at in one claim
ORGANIZATIONS = 3  # tried in one claim, and
KEYS = 3  # of each, where others are claiming too
OLDEST = 5  # of a key, where the oldest is being claimed

# Written into the statement: with a parameter no database can tell that the partial index fits.
_WAITING = runs.c.state == literal("queued", literal_execute=True)
_RUNNING = runs.c.state == literal("running", literal_execute=True)


class Line:
    """The waiting runs in their order."""

    def __init__(self, *, ageing: float) -> None:
        """`ageing` is in seconds."""
        self._ageing = round(ageing * 1000)
        self._after = ""  # the organisation whose turn it was last

    def runs(self, tx: Transaction, now: Millis) -> Iterator[tuple[str, str]]:
        """The ids of runs and of their sessions, whose turn it is first. Only some of them.

        The first of every key comes before the second of any: the first may be being claimed.
        """
        heads = []
        for organization in self._organizations(tx):
            for head in self._heads(tx, organization, now):
                heads.append(head)
                self._after = organization
                yield head.id, head.session_id
        for head in heads:
            for run in tx.execute(_BEHIND, dict(head._mapping)).all():
                yield run.id, run.session_id

    def _organizations(self, tx: Transaction) -> list[str]:
        found = tx.execute(_ORGANIZATIONS, {"after": self._after}).all()
        first = nsmallest(ORGANIZATIONS, found, lambda row: (row.at_work, row.served or 0, row.id))
        return [row.id for row in first]

    def _heads(self, tx: Transaction, organization: str, now: Millis) -> list[Row[Any]]:
        """The oldest runs of the keys whose turn it is."""
        found = tx.execute(_HEADS, {"organization_id": organization}).all()

        def place(row: Row[Any]) -> tuple[int, int, Millis, bool, str]:
            aged = min(HIGHEST, row.priority + max(0, now - row.queued_at) // self._ageing)
            turn = row.queued_at if row.served is None else row.served
            # Of two in one moment, the one that has not been served.
            return -aged, row.at_work, turn, row.served is not None, row.id

        return nsmallest(KEYS, found, place)


def _around(
    name: str, column: ColumnElement[str], after: ColumnElement[str], *which: ColumnElement[bool]
) -> CTE:
    """The distinct values of `column` among the waiting, in order, from `after` and around.

    Each hop is one descent of the index.
    """
    least = select(func.min(column)).where(_WAITING, *which)

    def following(value: ColumnElement[str]) -> ColumnElement[str]:
        return func.coalesce(least.where(column > value).scalar_subquery(), least.scalar_subquery())

    first = following(after)
    one = literal_column("1", Integer)
    start = select(first.label("value"), first.label("first"), one.label("number"))
    hop = start.cte(name, recursive=True)
    behind = following(hop.c.value)
    return hop.union_all(
        select(behind, hop.c.first, hop.c.number + 1).where(
            hop.c.number < WINDOW, hop.c.value.is_not(None), behind != hop.c.first
        )
    )


def _at_work(*which: ColumnElement[bool]) -> ColumnElement[int]:
    return (
        select(func.count())
        .select_from(runs)
        .join(sessions, sessions.c.id == runs.c.session_id)
        .where(_RUNNING, *which, sessions.c.status == "running")
        .scalar_subquery()
        .label("at_work")
    )


def _served(which: ColumnElement[bool]) -> ColumnElement[Millis | None]:
    return (
        select(func.max(runs.c.started_at))
        .where(which, runs.c.started_at.is_not(None))
        .scalar_subquery()
        .label("served")
    )


def _organizations() -> Select[Any]:
    ring = _around("ring", runs.c.organization_id, bindparam("after", type_=String))
    its = runs.c.organization_id == ring.c.value
    return select(ring.c.value.label("id"), _at_work(its), _served(its)).where(
        ring.c.value.is_not(None)
    )


def _oldest_of_keys(priority: str) -> Select[Any]:
    """The id of the oldest run of each key of this priority."""
    level = literal_column(str(LEVELS[priority]), Integer)
    here = (runs.c.organization_id == bindparam("organization_id"), runs.c.priority == level)
    last = (
        select(runs.c.key_id)
        .where(here[0], runs.c.started_at.is_not(None))
        .order_by(runs.c.started_at.desc())
        .limit(1)
        .scalar_subquery()
    )
    ring = _around(priority, runs.c.key_id, func.coalesce(last, ""), *here)
    its = runs.c.key_id == ring.c.value
    oldest = select(func.min(runs.c.id)).where(_WAITING, *here, its).scalar_subquery()
    return select(level.label("priority"), ring.c.value.label("key_id"), oldest.label("id")).where(
        ring.c.value.is_not(None)
    )


def _heads() -> Select[Any]:
    heads = union_all(*(_oldest_of_keys(each) for each in LEVELS)).subquery("heads")
    here, its = (
        runs.c.organization_id == bindparam("organization_id"),
        runs.c.key_id == heads.c.key_id,
    )

    def of_the_run(column: ColumnElement[Any]) -> ScalarSelect[Any]:
        # Not by a join: for that PostgreSQL may read the whole table.
        return select(column).where(runs.c.id == heads.c.id).scalar_subquery()

    return select(
        bindparam("organization_id", type_=String).label("organization_id"),
        heads.c.priority,
        heads.c.key_id,
        heads.c.id,
        of_the_run(runs.c.session_id).label("session_id"),
        of_the_run(runs.c.queued_at).label("queued_at"),
        _at_work(here, its),
        _served(its),
    )


def _behind() -> Select[Any]:
    """Those of the same key and priority behind one."""
    same = ("organization_id", "priority", "key_id")
    return (
        select(runs.c.id, runs.c.session_id)
        .where(_WAITING, *(runs.c[name] == bindparam(name) for name in same))
        .where(runs.c.id > bindparam("id"))
        .order_by(runs.c.id)
        .limit(OLDEST)
    )


_ORGANIZATIONS, _HEADS, _BEHIND = _organizations(), _heads(), _behind()
