"""A standby beside its primary, read from while it is fresh.

How far a standby is behind cannot be told by the standby alone: one that hears nothing from its
primary believes to be up to date. So the primary's place in its log is noted with the time, and
the standby has at least what was there at the time of the last place that it has reached.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog
from sqlalchemy import text

from stationmaster.kernel.errors import Unavailable
from stationmaster.storage.database import Database, Transaction

log = structlog.get_logger(__name__)

T = TypeVar("T")

LOOKS = 4  # for each staleness, so that what is fresh is not taken for old

_WRITTEN = text("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")
# Nothing from a server that is no standby: another one's log says nothing about ours.
_REPLAYED = text(
    "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() - '0/0'::pg_lsn END"
)


@dataclass(frozen=True, slots=True)
class _Place:
    at: float
    written: int


class ReplicatedDatabase(Database):
    """A primary, and a standby for what may be old."""

    def __init__(self, primary: Database, standby: Database, *, staleness: float) -> None:
        """`staleness` in seconds is how old what `browse` sees may be. Closes both at its end."""
        self.dialect = primary.dialect
        self._primary = primary
        self._standby = standby
        self._staleness = staleness
        self._places: deque[_Place] = deque(maxlen=16 * LOOKS)
        self._fresh_at: float | None = None
        self._used: bool | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def fresh(self) -> bool:
        """Whether the standby may be asked now."""
        if self._fresh_at is None:
            return False
        return asyncio.get_running_loop().time() - self._fresh_at <= self._staleness

    async def read(self, query: Callable[[Transaction], T]) -> T:
        """See `Database.read`: the primary's."""
        return await self._primary.read(query)

    async def browse(self, query: Callable[[Transaction], T]) -> T:
        """See `Database.browse`: the standby's, where it is fresh and answers."""
        if self._watch is None:
            self._watch = asyncio.create_task(self._run(), name="database-replica")
        if self.fresh:
            with contextlib.suppress(Unavailable):
                return await self._standby.read(query)
            self._fresh_at = None
        return await self._primary.read(query)

    async def write(self, verb: Callable[[Transaction], T]) -> T:
        """See `Database.write`."""
        return await self._primary.write(verb)

    async def check(self) -> None:
        """See `Database.check`: without the standby all goes on."""
        await self._primary.check()

    async def close(self) -> None:
        """See `Database.close`."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
        await self._standby.close()
        await self._primary.close()

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(Unavailable):
                await self.look()
            if self._used != self.fresh:
                self._used = self.fresh
                log.info(
                    "Lists are read from the replica."
                    if self._used
                    else "Lists are read from the primary: the replica is away or behind."
                )
            await asyncio.sleep(self._staleness / LOOKS)

    async def look(self) -> None:
        """Find out how fresh the standby is. Raises `Unavailable`."""
        at = asyncio.get_running_loop().time()
        written = await self._primary.read(lambda tx: _number(tx, _WRITTEN))
        if written is not None:
            self._places.append(_Place(at, written))
        replayed = await self._standby.read(lambda tx: _number(tx, _REPLAYED))
        if replayed is None:
            return
        reached = [place.at for place in self._places if place.written <= replayed]
        if reached:
            self._fresh_at = max(reached[-1], self._fresh_at or 0.0)


def _number(tx: Transaction, query: Any) -> int | None:
    found = tx.execute(query).scalar()
    return None if found is None else int(found)
