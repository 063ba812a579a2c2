"""The audit log: written with what it is about, read and exported by its organisation.

Entries of an organisation form a chain: each one's hash is keyed and covers the hash before it, so
that changing, inserting, moving or deleting one is found (`verification`). The keys of the hashes
are sealed: who can write the database, but not read the server's secret, cannot mend the chain.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import Row, Select, insert, select, update

# Its ON CONFLICT is SQLite's too.
from sqlalchemy.dialects.postgresql import insert as upsert

from stationmaster.audit.entry import (
    FIELDS,
    GENESIS,
    MAX_TARGET,
    OUTCOMES,
    Actor,
    Entry,
    Outcome,
    clipped,
    encode_details,
    entry_hash,
)
from stationmaster.audit.keyring import Keyring
from stationmaster.audit.tables import audit_chains, audit_entries
from stationmaster.kernel.clock import Clock, Millis
from stationmaster.kernel.errors import Invalid
from stationmaster.kernel.paging import Page
from stationmaster.kernel.principal import Principal
from stationmaster.storage import Database, Transaction

READ_SCOPE = "admin:audit"
EXPORT_PAGE = 500  # entries read at once; bounds an export's memory
_MAX_CURSOR = 2**62


@dataclass(frozen=True, slots=True)
class Sought:
    """Which entries: each part that is given must fit. `since` is included, `until` is not."""

    action: str | None = None
    actor: str | None = None
    target: str | None = None
    outcome: str | None = None
    since: Millis | None = None
    until: Millis | None = None

    def __post_init__(self) -> None:
        if self.outcome is not None and self.outcome not in OUTCOMES:
            raise Invalid(f"outcome must be one of {', '.join(OUTCOMES)}.", param="outcome")

    def of(self, query: Select[Any]) -> Select[Any]:
        """The query, narrowed."""
        columns = audit_entries.c
        if self.action is not None and self.action.endswith(".*"):
            query = query.where(columns.action.startswith(self.action[:-1], autoescape=True))
        elif self.action is not None:
            query = query.where(columns.action == self.action)
        for column, value in (
            (columns.actor_id, self.actor),
            (columns.target, self.target),
            (columns.outcome, self.outcome),
        ):
            if value is not None:
                query = query.where(column == value)
        if self.since is not None:
            query = query.where(columns.at >= self.since)
        if self.until is not None:
            query = query.where(columns.at < self.until)
        return query


class Audit:
    """The verbs on the audit log. A `Recorder`."""

    def __init__(self, database: Database, keyring: Keyring, clock: Clock) -> None:
        """`keyring` must have been prepared before anything is recorded."""
        self._database = database
        self._keyring = keyring
        self._clock = clock

    def record(
        self,
        tx: Transaction,
        actor: Actor,
        action: str,
        *,
        target: str | None = None,
        outcome: Outcome = "success",
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """See `Recorder`."""
        seq, previous = _lock_end(tx, actor.organization_id)
        key_id, key = self._keyring.present
        row: dict[str, Any] = {
            "organization_id": actor.organization_id,
            "seq": seq + 1,
            "at": self._clock.now(),
            "project_id": actor.project_id,
            "actor_kind": actor.kind,
            "actor_id": clipped(actor.id),
            "actor_hint": actor.hint,
            "address": clipped(actor.address),
            "request_id": clipped(actor.request_id),
            "action": action,
            "target": clipped(target, MAX_TARGET),
            "outcome": outcome,
            "details": encode_details(details),
            "key_id": key_id,
        }
        row["hash"] = entry_hash(key, previous, row)
        tx.execute(insert(audit_entries), row)
        tx.execute(
            update(audit_chains)
            .where(audit_chains.c.organization_id == actor.organization_id)
            .values(seq=row["seq"], hash=row["hash"])
        )

    async def note(
        self,
        principal: Principal,
        action: str,
        *,
        target: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Add an entry by itself: of what is about to be done, and has no transaction.

        Raises `Unavailable`; then it must not be done.
        """
        actor = Actor.of(principal)
        await self._database.write(
            lambda tx: self.record(tx, actor, action, target=target, details=details)
        )

    async def list(
        self, principal: Principal, sought: Sought, *, limit: int, after: str | None
    ) -> Page[Entry]:
        """The organisation's entries, newest first. `after` is the cursor of the page before."""
        principal.require(READ_SCOPE)
        query = _of(principal, sought).order_by(audit_entries.c.seq.desc()).limit(limit + 1)
        if after is not None:
            query = query.where(audit_entries.c.seq < _cursor(after))
        rows = await self._database.browse(lambda tx: tx.execute(query).all())
        items = [_entry(row) for row in rows[:limit]]
        return Page(items, str(items[-1].seq) if len(rows) > limit else None)

    async def export(self, principal: Principal, sought: Sought) -> AsyncIterator[Sequence[Entry]]:
        """The organisation's entries up to now, oldest first, in pages. It goes on record itself.

        Refusals are raised here, before the first page.
        """
        principal.require(READ_SCOPE)
        actor = Actor.of(principal)

        def begin(tx: Transaction) -> int:
            self.record(tx, actor, "audit.export")
            return _lock_end(tx, actor.organization_id)[0]

        last = await self._database.write(begin)
        return self._pages(_of(principal, sought), last)

    async def _pages(self, query: Select[Any], last: int) -> AsyncIterator[Sequence[Entry]]:
        seq = 0
        while True:
            page = (
                query.where(audit_entries.c.seq > seq, audit_entries.c.seq <= last)
                .order_by(audit_entries.c.seq)
                .limit(EXPORT_PAGE)
            )
            entries = await self._database.browse(partial(_read, page))
            if not entries:
                return
            yield entries
            seq = entries[-1].seq


def _lock_end(tx: Transaction, organization_id: str) -> tuple[int, str]:
    """The number and hash of the chain's last entry, locked until the commit."""
    end = (
        select(audit_chains.c.seq, audit_chains.c.hash)
        .where(audit_chains.c.organization_id == organization_id)
        .with_for_update()
    )
    row = tx.execute(end).first()
    if row is None:
        first = {"organization_id": organization_id, "seq": 0, "hash": GENESIS}
        tx.execute(upsert(audit_chains).on_conflict_do_nothing(), first)
        row = tx.execute(end).one()
    return row.seq, row.hash


def _of(principal: Principal, sought: Sought) -> Select[Any]:
    mine = audit_entries.c.organization_id == principal.owner.organization_id
    return sought.of(select(audit_entries).where(mine))


def _cursor(after: str) -> int:
    if not (after.isascii() and after.isdigit() and len(after) <= len(str(_MAX_CURSOR))):
        raise Invalid("after must be `next` of the page before.", param="after")
    return min(int(after), _MAX_CURSOR)


def _entry(row: Row[Any]) -> Entry:
    values = {name: getattr(row, name) for name in FIELDS if name != "key_id"}
    values["details"] = msgspec.json.decode(row.details)
    return Entry(hash=row.hash, **values)


def _read(query: Select[Any], tx: Transaction) -> Sequence[Entry]:
    return [_entry(row) for row in tx.execute(query)]
