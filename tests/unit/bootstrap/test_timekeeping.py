"""Servers on one PostgreSQL go by its clock, and say where their machine's is off."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from stationmaster.bootstrap.timekeeping import DatabaseTime, timekeeping
from stationmaster.http.health import Finding
from stationmaster.jobs import Instances, Lease
from stationmaster.kernel.clock import Millis, SystemClock
from stationmaster.migrations import migrate
from stationmaster.storage import Database, open_database, server_time

LEASE_S = 30.0
MINUTE = 60_000


class OffClock(SystemClock):
    """This machine's clock, and how far it is set off."""

    def __init__(self, off: Millis = 0) -> None:
        self.off = off

    def now(self) -> Millis:
        return super().now() + self.off


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[Database]:
    await migrate(postgres_url)
    opened = open_database(postgres_url)
    yield opened
    await opened.close()


async def kept(database: Database, own: OffClock) -> DatabaseTime:
    _, time = await timekeeping(database, own, LEASE_S)
    assert time is not None
    return time


async def test_a_file_is_used_by_one_machine(tmp_path: Path) -> None:
    database, own = open_database(f"sqlite:///{tmp_path}/file.db"), OffClock()
    assert await timekeeping(database, own, LEASE_S) == (own, None)
    await database.close()


@pytest.mark.parametrize("off", [5 * MINUTE, -5 * MINUTE])
async def test_time_is_the_databases(database: Database, off: Millis) -> None:
    time = await kept(database, OffClock(off))
    before = await server_time(database)
    now = time.clock.now()
    after = await server_time(database)
    # Half a minute for a machine at work: the clock is five off.
    assert before - MINUTE / 2 <= now <= after + MINUTE / 2


@pytest.mark.parametrize(
    ("off", "words"),
    [
        (5 * MINUTE, "s ahead of the database's"),
        (-5 * MINUTE, "s behind the database's"),
    ],
)
async def test_a_clock_that_drifts_is_said_with_what_to_do(
    database: Database, off: Millis, words: str
) -> None:
    own = OffClock()
    time = await kept(database, own)
    fine = Finding(time.component, await time.check())
    assert fine.status == "ok", fine
    own.off = off
    found = Finding(time.component, await time.check())
    assert found.status == "degraded"
    told = found.tell(known=True)
    assert words in told["warning"]
    assert "NTP" in told["warning"]
    assert abs(told["offset_seconds"] * 1000 - off) < MINUTE
    assert set(found.tell(known=False)) == {"status", "offset_seconds"}


async def test_no_lease_is_lost_to_a_machine_whose_clock_is_off(database: Database) -> None:
    """By their own clocks each would take the other's at once, or be taken for dead."""
    clocks = [(await kept(database, OffClock(off))).clock for off in (0, 10 * MINUTE, -10 * MINUTE)]
    alive = [Instances(database, clock, lease=LEASE_S * 10) for clock in clocks]
    for each in alive:
        await each.register()
    leases = [
        Lease(database, clock, "one", holder=f"{number}", length=LEASE_S * 10)
        for number, clock in enumerate(clocks)
    ]
    for first in leases:
        assert await first.take()
        assert not any([await other.take() for other in leases if other is not first])
        await first.release()
    for each in alive:
        assert await each.renew()
        assert [await other.dead() for other in alive] == [[], [], []]
        assert await database.write(partial(each.bury, instance_id=alive[0].id)) is False
