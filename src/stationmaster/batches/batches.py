"""The verbs on batches: create, show, list, cancel, delete, read what came of them."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

from sqlalchemy import ColumnElement, Row, delete, func, insert, select, update

from stationmaster.batches.batch import (
    Batch,
    BatchState,
    Counts,
    Item,
    NewRequest,
    Operation,
    Output,
    Progress,
)
from stationmaster.batches.progress import forget, look_now, progress_of, with_told
from stationmaster.batches.sorting import Sorter, Sorting
from stationmaster.batches.tables import batch_requests, batches
from stationmaster.jobs import Outbox
from stationmaster.kernel.clock import Clock
from stationmaster.kernel.errors import Conflict, Denied, Exhausted, NotFound
from stationmaster.kernel.ids import check_id, new_id
from stationmaster.kernel.paging import Page
from stationmaster.kernel.principal import Owner, Principal
from stationmaster.storage import Database, Prepared, Transaction

SCOPE = "write:messages"
BATCH_JOB = "batch.queued"
PREFIXES = MappingProxyType(
    {"messages": "msgbatch", "chat": "batch", "embeddings": "batch", "responses": "batch"}
)
"""Of the ids of batches, by operation."""

LIFE_MS = 24 * 3600 * 1000
ENTERING_MS = 3600 * 1000  # a batch that is still entering then has lost its server
MAX_OPEN = 100  # batches of one project that are not ended
AT_ONCE = 500  # rows in one transaction: others write in between
OPEN_STATES = ("entering", "in_progress", "canceling")

_INSERT = Prepared(insert(batch_requests))


class Batches:
    """Batches belong to a project. They run with the rights that their key has meanwhile."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        outbox: Outbox,
        *,
        retention: float,
        sorting: Sorting | None = None,
    ) -> None:
        """`retention` is how long results are kept after a batch was made, in seconds.

        `sorting` says which requests go into batches of their providers; without it none does.
        """
        self._sorting = sorting
        self._database = database
        self._clock = clock
        self._outbox = outbox
        self._retention_ms = round(retention * 1000)
        self.entrance = asyncio.Semaphore(1)
        """Held by whoever has a batch that comes in in memory: it may be of hundreds of MB."""

    async def create(
        self,
        principal: Principal,
        operation: Operation,
        requests: Sequence[NewRequest],
        headers: Sequence[tuple[str, str]] = (),
        details: Mapping[str, Any] | None = None,
    ) -> Batch:
        """Take a batch in; it is durable when this returns, and begins then.

        `headers` go with each of its calls. Raises `Denied`, `Exhausted` (`too_many_batches`) and
        `Unavailable`; then nothing of it runs.
        """
        principal.require(SCOPE)
        if principal.kind == "run":
            # Its calls would be outside of the run's budget, and outlive it.
            raise Denied("A run cannot make batches.")
        now = self._clock.now()
        batch_id = new_id(PREFIXES[operation])
        row = {
            "id": batch_id,
            "organization_id": principal.owner.organization_id,
            "project_id": principal.owner.project_id,
            "key_id": principal.key_id,
            "operation": operation,
            "headers": [list(header) for header in headers],
            "state": "entering",
            "details": None if details is None else dict(details),
            "total": len(requests),
            "succeeded": 0,
            "errored": 0,
            "canceled": 0,
            "expired": 0,
            "created_at": now,
            "expires_at": now + LIFE_MS,
            "turn_at": 0,
        }
        await self._database.write(lambda tx: _enter(tx, principal.owner, row))
        sorter = Sorter(self._sorting, principal, operation, headers)
        try:
            # In pieces: a large batch in one transaction would keep all others from writing.
            for start in range(0, len(requests), AT_ONCE):
                piece = requests[start : start + AT_ONCE]
                rows = _rows(batch_id, start, piece, await sorter.places(piece), now)
                await self._database.write(partial(_insert, rows=rows))
            return await self._database.write(lambda tx: self._begin(tx, batch_id, sorter))
        except Exception:
            await self._discard(batch_id)
            raise

    def _begin(self, tx: Transaction, batch_id: str, sorter: Sorter) -> Batch:
        mine = batches.c.id == batch_id
        tx.execute(
            update(batches)
            .where(mine)
            .values(
                state="in_progress",
                native=sorter.sorted or None,
                destinations=sorter.noted() or None,
            )
        )
        self._outbox.put(tx, BATCH_JOB, {"batch_id": batch_id})
        return batch_of(tx.execute(select(batches).where(mine)).one())

    async def get(self, principal: Principal, batch_id: str) -> Batch:
        """One batch. Raises `NotFound`, also for another project's."""
        principal.require(SCOPE)
        return await self._database.read(
            lambda tx: with_told(tx, [_find(tx, principal.owner, batch_id)])[0]
        )

    async def list(
        self,
        principal: Principal,
        operations: Collection[Operation],
        *,
        limit: int,
        after: str | None = None,
        before: str | None = None,
    ) -> Page[Batch]:
        """The project's batches, newest first: those older than `after`, or newer than `before`.

        With `before`, the nearest of the newer ones; the page's cursor then says that there are
        more of those.
        """
        principal.require(SCOPE)
        query = select(batches).where(
            *_of(principal.owner),
            batches.c.operation.in_(operations),
            batches.c.state != "entering",
        )
        order: ColumnElement[Any] = batches.c.id.desc()
        if after is not None:
            query = query.where(batches.c.id < after)
        if before is not None:
            query, order = query.where(batches.c.id > before), batches.c.id.asc()
        query = query.order_by(order).limit(limit + 1)

        def verb(tx: Transaction) -> tuple[list[Batch], bool]:
            rows = tx.execute(query).all()
            return with_told(tx, [batch_of(row) for row in rows[:limit]]), len(rows) > limit

        items, more = await self._database.browse(verb)
        if before is not None:
            items.reverse()
        return Page(items, items[-1].id if more else None)

    async def cancel(self, principal: Principal, batch_id: str) -> Batch:
        """Begin nothing more of it. What is under way is finished, and billed. Idempotent.

        Of what is in a batch of its provider, that is told to begin no more.

        Raises `NotFound`, and `Conflict` (`batch_ended`) where it has ended.
        """
        principal.require(SCOPE)

        def verb(tx: Transaction) -> Batch:
            batch = _find(tx, principal.owner, batch_id, lock=True)
            if batch.state == "ended":
                raise Conflict("The batch has ended.", code="batch_ended")
            if batch.state == "in_progress":
                mine = batches.c.id == batch_id
                now = self._clock.now()
                tx.execute(update(batches).where(mine).values(state="canceling", cancel_at=now))
                look_now(tx, batch_id, now)
                close(tx, batch_id, "canceled", now)
            return with_told(tx, [_find(tx, principal.owner, batch_id)])[0]

        return await self._database.write(verb)

    async def delete(self, principal: Principal, batch_id: str) -> None:
        """Delete a batch and its results. Raises `NotFound`, and `Conflict` until it has ended."""
        principal.require(SCOPE)

        def verb(tx: Transaction) -> None:
            if _find(tx, principal.owner, batch_id, lock=True).state != "ended":
                raise Conflict(
                    "The batch has not ended. Cancel it first.", code="batch_in_progress"
                )
            tx.execute(delete(batch_requests).where(batch_requests.c.batch_id == batch_id))
            forget(tx, batch_id)
            tx.execute(delete(batches).where(batches.c.id == batch_id))

        await self._database.write(verb)

    async def progress(self, principal: Principal, batch_id: str) -> Sequence[Progress]:
        """How far its requests in batches of their providers are, in the order of their making.

        Of what did not arrive there only the last is told. Raises `NotFound`.
        """
        principal.require(SCOPE)

        def verb(tx: Transaction) -> Sequence[Progress]:
            _find(tx, principal.owner, batch_id)
            return progress_of(tx, batch_id)

        return await self._database.read(verb)

    async def results(self, principal: Principal, batch_id: str) -> AsyncIterator[Sequence[Item]]:
        """What came of each request, in their order, in pieces.

        Raises `NotFound` before it has ended (`results_not_ready`) and once they are deleted
        (`results_deleted`).
        """
        batch = await self.get(principal, batch_id)
        if batch.ended_at is None:
            raise NotFound("The batch has not ended.", code="results_not_ready")
        if batch.archived_at is not None:
            raise NotFound("The results had their time.", code="results_deleted")
        return self.items(batch_id)

    async def items(self, batch_id: str) -> AsyncIterator[Sequence[Item]]:
        """See `results`; for who has looked at the batch."""
        after = -1
        while True:
            rows = await self._database.read(partial(_page, batch_id=batch_id, after=after))
            if not rows:
                return
            after = rows[-1].number
            yield [
                Item(row.number, row.custom_id, row.state, row.status, row.reply) for row in rows
            ]

    # --- what has had its time ------------------------------------------------------------------

    async def sweep(self) -> int:
        """Delete results that have had their time, and batches that never came in whole.

        Returns how many. Idempotent.
        """
        now = self._clock.now()
        lost = (batches.c.state == "entering", batches.c.created_at < now - ENTERING_MS)
        old = (
            batches.c.state == "ended",
            batches.c.archived_at.is_(None),
            batches.c.created_at < now - self._retention_ms,
        )
        found = await self._database.read(
            lambda tx: (
                tx.execute(select(batches.c.id).where(*lost)).scalars().all(),
                tx.execute(select(batches.c.id).where(*old)).scalars().all(),
            )
        )
        for batch_id in found[0]:
            await self._discard(batch_id)
        for batch_id in found[1]:
            await self._drop_requests(batch_id)
            await self._database.write(partial(_archive, batch_id=batch_id, now=now))
        return len(found[0]) + len(found[1])

    async def _discard(self, batch_id: str) -> None:
        await self._drop_requests(batch_id)
        gone = delete(batches).where(batches.c.id == batch_id, batches.c.state == "entering")
        await self._database.write(lambda tx: tx.execute(gone))

    async def _drop_requests(self, batch_id: str) -> None:
        some = (
            select(batch_requests.c.number)
            .where(batch_requests.c.batch_id == batch_id)
            .limit(AT_ONCE)
            .scalar_subquery()
        )
        drop = delete(batch_requests).where(
            batch_requests.c.batch_id == batch_id, batch_requests.c.number.in_(some)
        )
        while (await self._database.write(lambda tx: tx.execute(drop))).rowcount:
            pass


def close(tx: Transaction, batch_id: str, outcome: str, now: int) -> None:
    """End every request of a batch that waits; its row is locked."""
    closed = tx.execute(
        update(batch_requests)
        .where(batch_requests.c.batch_id == batch_id, batch_requests.c.state == "waiting")
        .values(state=outcome, body="")
    ).rowcount
    count(tx, batch_id, outcome, closed, now)


def count(tx: Transaction, batch_id: str, outcome: str, requests: int, now: int) -> None:
    """Note that so many requests of a batch ended so. With the last of them it ends itself."""
    column = batches.c[outcome]
    mine = batches.c.id == batch_id
    tx.execute(update(batches).where(mine).values({column: column + requests}))
    row = tx.execute(select(batches).where(mine)).one()
    if batch_of(row).counts.processing == 0 and row.state != "ended":
        tx.execute(update(batches).where(mine).values(state="ended", ended_at=now))


def _enter(tx: Transaction, owner: Owner, row: dict[str, Any]) -> None:
    open_ = tx.execute(
        select(func.count())
        .select_from(batches)
        .where(*_of(owner), batches.c.state.in_(OPEN_STATES))
    ).scalar_one()
    if open_ >= MAX_OPEN:
        raise Exhausted(
            f"The project has {MAX_OPEN} batches that have not ended.",
            code="too_many_batches",
            retry_after=60.0,
        )
    tx.execute(insert(batches), row)


def _page(tx: Transaction, batch_id: str, after: int) -> Sequence[Row[Any]]:
    return tx.execute(
        select(batch_requests)
        .where(batch_requests.c.batch_id == batch_id, batch_requests.c.number > after)
        .order_by(batch_requests.c.number)
        .limit(AT_ONCE)
    ).all()


def _archive(tx: Transaction, batch_id: str, now: int) -> None:
    forget(tx, batch_id)
    tx.execute(update(batches).where(batches.c.id == batch_id).values(archived_at=now))


def _insert(tx: Transaction, rows: Sequence[dict[str, Any]]) -> None:
    tx.run_many(_INSERT, rows)


def _rows(
    batch_id: str,
    start: int,
    requests: Sequence[NewRequest],
    places: Sequence[int | None],
    now: int,
) -> list[dict[str, Any]]:
    return [
        {
            "batch_id": batch_id,
            "number": number,
            "custom_id": request.custom_id,
            "body": request.body,
            "state": "waiting",
            "due_at": now,
            "attempts": 0,
            "instance_id": None,
            "status": None,
            "reply": None,
            "destination": place,
            "submission_id": None,
        }
        for number, (request, place) in enumerate(zip(requests, places, strict=True), start)
    ]


def _of(owner: Owner) -> tuple[Any, Any]:
    return (
        batches.c.organization_id == owner.organization_id,
        batches.c.project_id == owner.project_id,
    )


def _find(tx: Transaction, owner: Owner, batch_id: str, *, lock: bool = False) -> Batch:
    if not any(is_id(batch_id, prefix) for prefix in set(PREFIXES.values())):
        raise _not_found()
    query = select(batches).where(batches.c.id == batch_id, *_of(owner))
    row = tx.execute(query.with_for_update() if lock else query).first()
    if row is None or row.state == "entering":
        raise _not_found()
    return batch_of(row)


def _not_found() -> NotFound:
    return NotFound("There is no batch with this id.", code="batch_not_found")


def is_id(text: str, prefix: str) -> bool:
    """Whether a text can be the id of a batch that has this prefix."""
    try:
        check_id(text, prefix)
    except NotFound:
        return False
    return True


def batch_of(row: Row[Any]) -> Batch:
    """A batch from its row."""
    ended = row.succeeded + row.errored + row.canceled + row.expired
    state: BatchState = row.state
    return Batch(
        id=row.id,
        owner=Owner(row.organization_id, row.project_id),
        key_id=row.key_id,
        operation=row.operation,
        state=state,
        counts=Counts(row.total - ended, row.succeeded, row.errored, row.canceled, row.expired),
        created_at=row.created_at,
        expires_at=row.expires_at,
        cancel_at=row.cancel_at,
        ended_at=row.ended_at,
        archived_at=row.archived_at,
        details=row.details or {},
        output=None if row.output_at is None else Output(row.output_file_id, row.error_file_id),
    )
