"""The verbs on histories. Every one is by owner: another's is not there."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Row, Select, delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert  # its ON CONFLICT is SQLite's too

from stationmaster.kernel.clock import Clock
from stationmaster.kernel.errors import TooLarge
from stationmaster.kernel.ids import new_id
from stationmaster.kernel.principal import Owner
from stationmaster.storage import Database, Transaction
from stationmaster.transcripts import summary
from stationmaster.transcripts.history import (
    Entry,
    Fork,
    History,
    HistoryKey,
    Written,
    read,
    write,
)
from stationmaster.transcripts.tables import transcript_entries, transcripts

PAGE = 500  # entries read in one transaction, and uuids compared in one statement

_OWN = (transcripts.c.organization_id, transcripts.c.project_id)


class Transcripts:
    """Histories of all sessions."""

    def __init__(self, database: Database, clock: Clock, *, max_size: int) -> None:
        """`max_size` is in bytes, of all of a session's histories together."""
        self._database = database
        self._clock = clock
        self._max_size = max_size

    # --- writing ------------------------------------------------------------------------------

    async def append(
        self,
        owner: Owner,
        key: HistoryKey,
        entries: Sequence[Entry],
        *,
        guard: Callable[[Transaction], None] | None = None,
    ) -> None:
        """Add entries at the end; they are durable when this returns.

        An entry whose `uuid` is there already is left out, so a batch may come again. `guard` may
        refuse by raising. Raises `TooLarge` (`transcript_full`) where the session's histories
        would grow over the bound: the history is then closed, and takes no more.
        """
        if not entries:
            return
        await summary.load_sdk()
        written: list[Written] | None
        try:
            written = await asyncio.to_thread(write, entries)
        except TooLarge:
            written = None

        def verb(tx: Transaction) -> bool:
            if guard is not None:
                guard(tx)
            return self._append(tx, owner, key, entries, written)

        if not await self._database.write(verb):
            raise TooLarge(
                "The agent's history has grown too large to be kept.", code="transcript_full"
            )

    def put(self, tx: Transaction, owner: Owner, session_id: str, fork: Fork) -> None:
        """Keep a copy in a session, in the caller's transaction. Raises `TooLarge`.

        Call `copy` for it before: that also does what must not be done in a transaction.
        """
        key = HistoryKey(session_id, fork.history_id)
        if not self._append(tx, owner, key, fork.entries, write(fork.entries)):
            raise TooLarge("The copy is too large to be kept.", code="transcript_full")

    def _append(
        self,
        tx: Transaction,
        owner: Owner,
        key: HistoryKey,
        entries: Sequence[Entry],
        written: list[Written] | None,
    ) -> bool:
        """False where the history is closed, by this or before."""
        row = self._lock(tx, owner, key)
        if row.closed:
            return False
        fresh = None if written is None else self._unknown(tx, row.id, written)
        if fresh == []:
            return True
        if fresh is None or not self._fits(tx, owner, key, fresh):
            close = update(transcripts).where(transcripts.c.id == row.id).values(closed=True)
            tx.execute(close)
            return False
        tx.execute(
            insert(transcript_entries),
            [
                {
                    "transcript_id": row.id,
                    "seq": row.head + number,
                    "organization_id": owner.organization_id,
                    "project_id": owner.project_id,
                    "uuid": each.uuid,
                    "data": each.data,
                }
                for number, (_, each) in enumerate(fresh, 1)
            ],
        )
        changes: dict[str, Any] = {
            "head": row.head + len(fresh),
            "size": row.size + sum(len(each.data) for _, each in fresh),
            "updated_at": self._clock.now(),
        }
        if key.subpath is None:
            new = [entries[place] for place, _ in fresh]
            changes["summary"] = summary.fold(row.summary, key, new)
        tx.execute(update(transcripts).where(transcripts.c.id == row.id).values(changes))
        return True

    def _lock(self, tx: Transaction, owner: Owner, key: HistoryKey) -> Row[Any]:
        now = self._clock.now()
        tx.execute(
            upsert(transcripts).on_conflict_do_nothing(),
            {
                "id": new_id("tran"),
                "organization_id": owner.organization_id,
                "project_id": owner.project_id,
                "session_id": key.session_id,
                "history_id": key.history_id,
                "subpath": key.subpath or "",
                "head": 0,
                "size": 0,
                "closed": False,
                "created_at": now,
                "updated_at": now,
            },
        )
        return tx.execute(_one(owner, key).with_for_update()).one()

    @staticmethod
    def _unknown(
        tx: Transaction, transcript_id: str, written: list[Written]
    ) -> list[tuple[int, Written]]:
        """Those that are not there yet, each uuid once, with their places in the batch."""
        uuids = list({each.uuid for each in written if each.uuid is not None})
        seen: set[str | None] = set()
        for start in range(0, len(uuids), PAGE):
            there = select(transcript_entries.c.uuid).where(
                transcript_entries.c.transcript_id == transcript_id,
                transcript_entries.c.uuid.in_(uuids[start : start + PAGE]),
            )
            seen.update(tx.execute(there).scalars())
        fresh = []
        for place, each in enumerate(written):
            if each.uuid is None or each.uuid not in seen:
                fresh.append((place, each))
                if each.uuid is not None:
                    seen.add(each.uuid)
        return fresh

    def _fits(
        self, tx: Transaction, owner: Owner, key: HistoryKey, fresh: list[tuple[int, Written]]
    ) -> bool:
        of_session = _of_session(select(func.sum(transcripts.c.size)), owner, key.session_id)
        held = int(tx.execute(of_session).scalar() or 0)
        return held + sum(len(each.data) for _, each in fresh) <= self._max_size

    # --- reading ------------------------------------------------------------------------------

    async def load(self, owner: Owner, key: HistoryKey) -> list[Entry] | None:
        """Every entry in order, equal to what was appended; None where there is none.

        A closed history has a beginning of what the agent wrote: see `History.closed`.
        """
        row = await self._database.read(lambda tx: tx.execute(_one(owner, key)).first())
        if row is None or row.head == 0:
            return None
        data: list[str] = []
        for start in range(0, row.head, PAGE):
            page = (
                select(transcript_entries.c.data)
                .where(
                    transcript_entries.c.transcript_id == row.id,
                    transcript_entries.c.seq > start,
                    transcript_entries.c.seq <= min(start + PAGE, row.head),
                )
                .order_by(transcript_entries.c.seq)
            )
            data += await self._database.read(
                lambda tx, page=page: list(tx.execute(page).scalars())  # type: ignore[misc]
            )
        # Deleted while it was read: half of it must not be taken for the whole.
        return await asyncio.to_thread(read, data) if len(data) == row.head else None

    async def histories(self, owner: Owner, session_id: str) -> list[History]:
        """Every transcript of a session, the oldest first. A closed one may have no entries."""
        query = _of_session(select(transcripts), owner, session_id)
        query = query.order_by(transcripts.c.created_at, transcripts.c.id)
        rows = await self._database.read(lambda tx: tx.execute(query).all())
        return [
            History(
                row.history_id,
                row.subpath or None,
                row.head,
                row.size,
                row.closed,
                row.created_at,
                row.updated_at,
            )
            for row in rows
        ]

    async def summaries(self, owner: Owner, session_id: str) -> list[tuple[str, int, Any]]:
        """Id, last change and the SDK's summary of each conversation in a session."""
        query = _of_session(select(transcripts), owner, session_id).where(
            transcripts.c.subpath == "", transcripts.c.head > 0
        )
        rows = await self._database.read(lambda tx: tx.execute(query).all())
        return [(row.history_id, row.updated_at, row.summary or {}) for row in rows]

    async def copy(
        self, owner: Owner, key: HistoryKey, *, up_to: str | None = None, title: str | None = None
    ) -> Fork:
        """A copy of a conversation up to and with the entry whose uuid is `up_to`; None is all.

        As the SDK forks: new ids throughout, sub-agents' transcripts left out, `title` at its end.
        Raises `NotFound` where there is no such history or entry, and `Invalid` where it cannot be
        copied.
        """
        entries = await self.load(owner, key)
        return await asyncio.to_thread(_fork, key, entries, up_to, title)

    # --- deleting -----------------------------------------------------------------------------

    def delete_session(self, tx: Transaction, owner: Owner, session_id: str) -> None:
        """Delete every history of a session, in the caller's transaction. Idempotent."""
        _delete(tx, _of_session(select(transcripts.c.id), owner, session_id))

    async def delete(self, owner: Owner, key: HistoryKey) -> None:
        """Delete a conversation with its sub-agents' transcripts, or one of those. Idempotent."""
        chosen = _of_session(select(transcripts.c.id), owner, key.session_id).where(
            transcripts.c.history_id == key.history_id
        )
        if key.subpath is not None:
            chosen = chosen.where(transcripts.c.subpath == key.subpath)
        await self._database.write(lambda tx: _delete(tx, chosen))


def _fork(
    key: HistoryKey, entries: list[Entry] | None, up_to: str | None, title: str | None
) -> Fork:
    from stationmaster.transcripts.forking import fork  # brings the SDK

    return fork(key, entries, up_to, title)


def _one(owner: Owner, key: HistoryKey) -> Select[Any]:
    return _of_session(select(transcripts), owner, key.session_id).where(
        transcripts.c.history_id == key.history_id, transcripts.c.subpath == (key.subpath or "")
    )


def _of_session(query: Select[Any], owner: Owner, session_id: str) -> Select[Any]:
    return query.where(
        transcripts.c.organization_id == owner.organization_id,
        transcripts.c.project_id == owner.project_id,
        transcripts.c.session_id == session_id,
    )


def _delete(tx: Transaction, chosen: Select[Any]) -> None:
    # Locked first: an append in between would leave entries without their transcript.
    ids = list(tx.execute(chosen.with_for_update()).scalars())
    for start in range(0, len(ids), PAGE):
        some = ids[start : start + PAGE]
        tx.execute(delete(transcript_entries).where(transcript_entries.c.transcript_id.in_(some)))
        tx.execute(delete(transcripts).where(transcripts.c.id.in_(some)))
