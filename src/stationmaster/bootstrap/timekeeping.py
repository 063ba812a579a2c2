"""Whose time it is: servers that share a PostgreSQL tell the time by its clock."""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stationmaster.http.services import Component
from stationmaster.kernel.clock import Clock, SharedClock
from stationmaster.kernel.errors import Unavailable
from stationmaster.storage import Database, server_time

OFF_S = 1.0  # a machine whose clock is kept by NTP is some milliseconds off


@dataclass(frozen=True, slots=True)
class DatabaseTime:
    """The database's time, asked for again each `period` seconds while `run` runs."""

    database: Database
    clock: SharedClock
    period: float

    async def run(self) -> None:
        """Go on asking. Never ends by itself."""
        while True:
            await asyncio.sleep(self.period)
            with contextlib.suppress(Unavailable):  # until then time goes on by itself
                await self.ask()

    async def ask(self) -> None:
        """Raises `Unavailable`."""
        await self.clock.ask(lambda: server_time(self.database))

    def offset(self) -> float:
        """How many seconds this machine's clock is ahead."""
        return self.clock.offset / 1000

    async def check(self) -> Mapping[str, Any]:
        """How far this machine's clock is ahead, and what to do where that is too much."""
        off = self.offset()
        if abs(off) < OFF_S:
            return {"offset_seconds": off}
        return {
            "offset_seconds": off,
            "warning": f"This machine's clock is {abs(off):.1f} s"
            f" {'ahead of' if off > 0 else 'behind'} the database's. Leases and expiries go by the"
            " database's, but logs, files and certificates by this one: set it, by NTP for"
            " instance.",
        }

    @property
    def component(self) -> Component:
        """For `/health`."""
        return Component("clock", self.check, critical=False)


async def timekeeping(
    database: Database, own: Clock, lease: float
) -> tuple[Clock, DatabaseTime | None]:
    """The clock to go by; with PostgreSQL also what keeps it right. `own` is this machine's.

    `lease` is in seconds: the time is asked for as often as leases are renewed. Raises
    `Unavailable`.
    """
    if database.dialect == "sqlite":  # its servers are on one machine
        return own, None
    clock = SharedClock(own)
    time = DatabaseTime(database, clock, lease / 3)
    await time.ask()
    return clock, time
