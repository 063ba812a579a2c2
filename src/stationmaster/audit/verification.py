"""Whether the chains are whole, and retention, which shortens them without breaking them.

    checkpoint ─▶ checkpoint ─▶ entry ─▶ entry ─▶ … ─▶ entry ─▶ the end
    └ what retention deleted ┘  └ what is kept                └ audit_chains

A checkpoint holds the number and hash of the last entry it stands for. What cannot be found here
is that the newest entries were deleted and the end set back to before them: keep `end` elsewhere,
and give it to `verify` as what must be there.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
from sqlalchemy import delete, func, insert, select, union

from stationmaster.audit.entry import GENESIS, checkpoint_hash, entry_hash
from stationmaster.audit.keyring import Keyring
from stationmaster.audit.tables import audit_chains, audit_checkpoints, audit_entries
from stationmaster.kernel.clock import Clock, Millis
from stationmaster.storage import Database, Transaction

log = structlog.get_logger(__name__)

PAGE = 1000  # rows read at once
PRUNED_AT_ONCE = 2000  # entries deleted in one transaction: others wait for it on SQLite
MOST_FAULTS = 20  # told of one chain

Rows = Iterator[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong at an entry."""

    seq: int
    what: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one organisation's chain is. `end` is the number and hash of its last entry."""

    organization_id: str
    entries: int
    deleted: int
    end: tuple[int, str]
    faults: tuple[Fault, ...]

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults


class Chains:
    """The verbs on whole chains, for the operator."""

    def __init__(self, database: Database, keyring: Keyring, clock: Clock) -> None:
        self._database = database
        self._keyring = keyring
        self._clock = clock

    async def verify(self, expected: Mapping[str, tuple[int, str]] | None = None) -> list[Verdict]:
        """Check every organisation's chain.

        `expected` are ends that were noted earlier, by organisation: they must still be there,
        or have been deleted by retention.
        """
        expected = expected or {}
        await self._keyring.refresh()
        known = await self._database.read(_organizations)
        return [
            await self._database.read(partial(self._verify, name, expected.get(name)))
            for name in sorted({*known, *expected})
        ]

    def _verify(self, name: str, noted: tuple[int, str] | None, tx: Transaction) -> Verdict:
        return _Walk(tx, name, self._keyring).verdict(noted)

    async def prune(self, older_than: Millis) -> int:
        """Delete entries from before, and leave checkpoints in their place; return how many.

        A chain that is not whole where it would be cut is left alone: it is evidence.
        """
        deleted = 0
        for organization_id in await self._database.read(_organizations):
            while True:
                gone = await self._database.write(partial(self._prune, organization_id, older_than))
                deleted += gone
                if gone < PRUNED_AT_ONCE:
                    break
        return deleted

    def _prune(self, organization_id: str, older_than: Millis, tx: Transaction) -> int:
        end = tx.execute(
            select(audit_chains)
            .where(audit_chains.c.organization_id == organization_id)
            .with_for_update()
        ).first()
        walk = _Walk(tx, organization_id, self._keyring)
        base, base_hash = walk.checkpoints()
        # Entries are cut from the oldest on, up to the first that is kept: a clock may step back.
        kept = tx.execute(
            select(func.min(audit_entries.c.seq)).where(
                audit_entries.c.organization_id == organization_id,
                audit_entries.c.at >= older_than,
            )
        ).scalar()
        last = (end.seq if end is not None else base) if kept is None else kept - 1
        last = min(last, base + PRUNED_AT_ONCE)
        if last <= base:
            return 0
        last_hash = walk.entries(base, base_hash, last)
        if walk.faults:
            log.critical(
                "The audit log was tampered with; nothing of it is deleted.",
                organization_id=organization_id,
                seq=walk.faults[0].seq,
            )
            return 0
        self._cut(tx, organization_id, (base + 1, last), last_hash, walk.previous_checkpoint)
        return last - base

    def _cut(
        self,
        tx: Transaction,
        organization_id: str,
        span: tuple[int, int],
        last_hash: str,
        previous: str,
    ) -> None:
        key_id, key = self._keyring.present
        row = {
            "organization_id": organization_id,
            "seq": span[1],
            "from_seq": span[0],
            "entry_hash": last_hash,
            "at": self._clock.now(),
            "key_id": key_id,
        }
        tx.execute(
            delete(audit_entries).where(
                audit_entries.c.organization_id == organization_id,
                audit_entries.c.seq <= span[1],
            )
        )
        tx.execute(insert(audit_checkpoints), {**row, "hash": checkpoint_hash(key, previous, row)})


class _Walk:
    """One pass along a chain, in one snapshot."""

    def __init__(self, tx: Transaction, organization_id: str, keyring: Keyring) -> None:
        self._tx = tx
        self._organization_id = organization_id
        self._keyring = keyring
        self.faults: list[Fault] = []
        self.previous_checkpoint = GENESIS

    def verdict(self, expected: tuple[int, str] | None) -> Verdict:
        base, base_hash = self.checkpoints()
        end = self._end()
        last_hash = self.entries(base, base_hash, None, expected)
        last = self._last
        if end != (last, last_hash):
            self._fault(max(end[0], last), "the chain does not end where it should")
        if expected is not None and expected[0] > last:
            self._fault(expected[0], "an entry that was there before is missing")
        return Verdict(
            self._organization_id, self._count, base, end, tuple(self.faults[:MOST_FAULTS])
        )

    def checkpoints(self) -> tuple[int, str]:
        """Check what retention left; return the number and hash of the last entry it deleted."""
        base, base_hash = 0, GENESIS
        rows = self._tx.execute(
            select(audit_checkpoints)
            .where(audit_checkpoints.c.organization_id == self._organization_id)
            .order_by(audit_checkpoints.c.seq)
        ).mappings()
        for row in map(dict, rows):
            if row["from_seq"] != base + 1:
                self._fault(base + 1, "a checkpoint is missing")
            key = self._keyring.get(row["key_id"])
            if key is None:
                self._fault(row["seq"], "its checkpoint's key cannot be opened")
            elif checkpoint_hash(key, self.previous_checkpoint, row) != row["hash"]:
                self._fault(row["seq"], "its checkpoint was changed")
            base, base_hash = row["seq"], row["entry_hash"]
            self.previous_checkpoint = row["hash"]
        return base, base_hash

    def entries(
        self, base: int, base_hash: str, last: int | None, noted: tuple[int, str] | None = None
    ) -> str:
        """Check the entries after `base`, to `last` or to the end; return the last one's hash."""
        seq, previous, self._count = base, base_hash, 0
        for row in self._rows(last):
            self._count += 1
            if row["seq"] != seq + 1:
                self._fault(seq + 1, "an entry is missing, or one is there twice")
            else:
                self._check(row, previous)
            seq, previous = row["seq"], row["hash"]
            if noted is not None and noted[0] == seq and noted[1] != previous:
                self._fault(seq, "it is not the entry that was noted")
        self._last = seq
        if last is not None and seq != last:
            self._fault(seq + 1, "an entry is missing")
        return previous

    def _check(self, row: Mapping[str, Any], previous: str) -> None:
        key = self._keyring.get(row["key_id"])
        if key is None:
            self._fault(row["seq"], "its key cannot be opened")
        elif entry_hash(key, previous, row) != row["hash"]:
            self._fault(row["seq"], "it was changed, or the one before it")

    def _rows(self, last: int | None) -> Rows:
        seq = -(2**62)
        columns = audit_entries.c
        while True:
            query = (
                select(audit_entries)
                .where(columns.organization_id == self._organization_id, columns.seq > seq)
                .order_by(columns.seq)
                .limit(PAGE)
            )
            if last is not None:
                query = query.where(columns.seq <= last)
            rows = self._tx.execute(query).mappings().all()
            yield from map(dict, rows)
            if len(rows) < PAGE:
                return
            seq = rows[-1]["seq"]

    def _end(self) -> tuple[int, str]:
        row = self._tx.execute(
            select(audit_chains).where(audit_chains.c.organization_id == self._organization_id)
        ).first()
        return (0, GENESIS) if row is None else (row.seq, row.hash)

    def _fault(self, seq: int, what: str) -> None:
        self.faults.append(Fault(seq, what))


def _organizations(tx: Transaction) -> list[str]:
    every = union(
        *(
            select(table.c.organization_id)
            for table in (audit_chains, audit_entries, audit_checkpoints)
        )
    )
    return sorted(tx.execute(every).scalars())
