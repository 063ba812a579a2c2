"""Work that one server of many does, and another one when that is gone."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog
from sqlalchemy import delete, or_, update
from sqlalchemy.dialects.postgresql import insert as upsert  # its ON CONFLICT is SQLite's too

from stationmaster.jobs.tables import leases
from stationmaster.kernel.clock import Clock
from stationmaster.kernel.errors import Unavailable
from stationmaster.storage import Database, Transaction

log = structlog.get_logger(__name__)


class Lease:
    """A name that one holder has at a time, until it lets go or does not renew.

    Clocks that differ by more than its length give it to two for a while, as does a holder that
    slept through its end: what is done under it must bear that.
    """

    def __init__(
        self, database: Database, clock: Clock, name: str, *, holder: str, length: float
    ) -> None:
        """`length` is in seconds; it is renewed at a third of that."""
        self.length = length
        self._database = database
        self._clock = clock
        self._name = name
        self._holder = holder
        self._held = False

    @property
    def held(self) -> bool:
        """Whether it was this holder's when that was last asked."""
        return self._held

    async def take(self) -> bool:
        """Take or renew it; False where another has it. Raises `Unavailable`."""
        self._held = await self._database.write(self._take)
        return self._held

    def _take(self, tx: Transaction) -> bool:
        now = self._clock.now()
        until = now + round(self.length * 1000)
        free = or_(leases.c.holder == self._holder, leases.c.held_until < now)
        mine = update(leases).where(leases.c.name == self._name, free)
        if tx.execute(mine.values(holder=self._holder, held_until=until)).rowcount:
            return True
        first = {"name": self._name, "holder": self._holder, "held_until": until}
        return bool(tx.execute(upsert(leases).on_conflict_do_nothing(), first).rowcount)

    async def release(self) -> None:
        """Let another have it at once. Idempotent. Raises `Unavailable`."""
        self._held = False
        mine = (leases.c.name == self._name, leases.c.holder == self._holder)
        await self._database.write(lambda tx: tx.execute(delete(leases).where(*mine)))

    async def lead(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work`, which never ends by itself, whenever the lease is held. Until cancelled.

        While the database is away it goes on for as long as the lease may still be held. What
        `work` raises is raised.
        """
        loop = asyncio.get_running_loop()
        working: asyncio.Task[None] | None = None
        renewed = loop.time()
        try:
            while True:
                asked = loop.time()
                try:
                    held = await self.take()
                except Unavailable:
                    held = self._held = self._held and asked - renewed < self.length
                else:
                    renewed = asked
                if held and working is None:
                    log.info("This server leads.", lease=self._name)
                    working = asyncio.create_task(_do(work), name=self._name)
                elif not held and working is not None:
                    log.warning("This server leads no more.", lease=self._name)
                    await _end(working)
                    working = None
                if working is None:
                    await asyncio.sleep(self.length / 3)
                else:
                    done, _ = await asyncio.wait({working}, timeout=self.length / 3)
                    for each in done:
                        each.result()
        finally:
            if working is not None:
                await _end(working)
            with suppress(Unavailable):
                await self.release()


async def _do(work: Callable[[], Awaitable[None]]) -> None:
    await work()


async def _end(working: "asyncio.Task[None]") -> None:
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
