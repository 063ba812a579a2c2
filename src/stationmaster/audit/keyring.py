"""What the hashes of the chain are keyed with."""

import os

import structlog
from sqlalchemy import insert, select

from stationmaster.audit.tables import audit_keys
from stationmaster.kernel.clock import Clock
from stationmaster.kernel.ids import new_id
from stationmaster.storage import Database, Transaction
from stationmaster.storage.resealing import reseal
from stationmaster.storage.sealing import SealBroken, Sealer

log = structlog.get_logger(__name__)

_KEY_BYTES = 32


class Keyring:
    """The keys of the chain that this server can open. New entries use the newest."""

    def __init__(self, database: Database, sealer: Sealer, clock: Clock) -> None:
        self._database = database
        self._sealer = sealer
        self._clock = clock
        self._keys: dict[str, bytes] = {}

    async def prepare(self) -> None:
        """Read the keys; make one where there is none that opens. Servers may do so at once."""
        self._keys = await self._database.write(self._prepare)

    async def refresh(self) -> None:
        """Read the keys again: another server may have made one."""
        self._keys = await self._database.read(self._read)

    def _prepare(self, tx: Transaction) -> dict[str, bytes]:
        found = self._read(tx)
        if found:
            return found
        if tx.execute(select(audit_keys.c.id).limit(1)).first() is not None:
            log.warning(
                "The audit log's key cannot be opened: SECRET_KEY has changed. Entries from before"
                " cannot be verified with the present one."
            )
        key_id, key = new_id("akey"), os.urandom(_KEY_BYTES)
        tx.execute(
            insert(audit_keys),
            {
                "id": key_id,
                "sealed": self._sealer.seal(key, purpose=f"audit_keys:{key_id}"),
                "created_at": self._clock.now(),
            },
        )
        return {key_id: key}

    def _read(self, tx: Transaction) -> dict[str, bytes]:
        found = {}
        for row in tx.execute(select(audit_keys).order_by(audit_keys.c.id)):
            try:
                found[row.id] = self._sealer.open(row.sealed, purpose=f"audit_keys:{row.id}")
            except SealBroken:
                continue
        return found

    async def reseal(self) -> int:
        """Seal what an older key of the operator's sealed; return how many."""
        return await reseal(self._database, audit_keys, self._sealer)

    @property
    def present(self) -> tuple[str, bytes]:
        """The key for a new entry, with its id. Call `prepare` first."""
        key_id = next(reversed(self._keys))
        return key_id, self._keys[key_id]

    def get(self, key_id: str) -> bytes | None:
        """A key by its id; None for one that cannot be opened."""
        return self._keys.get(key_id)
