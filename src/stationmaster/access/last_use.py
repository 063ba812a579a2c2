"""When each key was last used, written down together every half minute.

A use costs its request nothing but an entry in a dictionary. A server that is killed loses those of
the last half minute.
"""

import asyncio
from typing import Any

import structlog
from sqlalchemy import bindparam, or_, update

from stationmaster.access.tables import api_keys
from stationmaster.kernel.clock import Clock, Millis
from stationmaster.kernel.errors import Unavailable
from stationmaster.storage import Database, Transaction

log = structlog.get_logger(__name__)

FLUSH_S = 30.0
BATCH = 500  # rows in one transaction: others wait for it on SQLite

_SET = (
    update(api_keys)
    .where(
        api_keys.c.id == bindparam("key_id"),
        # Another server may have seen a later one.
        or_(api_keys.c.last_used_at.is_(None), api_keys.c.last_used_at < bindparam("at")),
    )
    .values(last_used_at=bindparam("at"))
)


class LastUse:
    """Collects uses of keys and writes them down."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._seen: dict[str, Millis] = {}

    def note(self, key_id: str) -> None:
        """The key was used just now."""
        self._seen[key_id] = self._clock.now()

    async def run(self) -> None:
        """Write down what is noted, for ever; once more when cancelled."""
        try:
            while True:
                await asyncio.sleep(FLUSH_S)
                try:
                    await self.flush()
                except Unavailable:
                    log.warning("The last uses of keys cannot be written; trying again.")
        except asyncio.CancelledError:
            await self.flush()
            raise

    async def flush(self) -> int:
        """Write down what is noted; return of how many keys. Raises `Unavailable`."""
        written = 0
        while self._seen:
            batch = list(self._seen.items())[:BATCH]
            rows: list[dict[str, Any]] = [{"key_id": key_id, "at": at} for key_id, at in batch]

            def verb(tx: Transaction, rows: list[dict[str, Any]] = rows) -> None:
                tx.execute(_SET, rows)

            await self._database.write(verb)
            for key_id, at in batch:
                if self._seen.get(key_id) == at:
                    del self._seen[key_id]
            written += len(batch)
        return written
