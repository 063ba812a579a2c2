"""Budgets on a fresh database."""

import pytest

from stationmaster.budgets import Budgets, Definitions, Rollups
from stationmaster.budgets.definition import SubjectKind
from stationmaster.events import EventLog
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.errors import NotFound
from stationmaster.kernel.principal import Owner, Principal
from stationmaster.live.bus import MemoryBus
from stationmaster.storage import Database


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def events(database: Database, clock: ManualClock) -> EventLog:
    return EventLog(database, MemoryBus(), clock)


@pytest.fixture
def budgets(database: Database, clock: ManualClock, events: EventLog) -> Budgets:
    return Budgets(database, clock, instance_id="ins_a", events=events)


@pytest.fixture
def definitions(database: Database, clock: ManualClock, events: EventLog) -> Definitions:
    async def anybody(principal: Principal, subject_id: str) -> Owner:
        if subject_id.startswith("proj_"):
            return Owner(principal.owner.organization_id, subject_id)
        if "unknown" in subject_id:
            raise NotFound
        return principal.owner

    kinds: tuple[SubjectKind, ...] = ("project", "key", "user", "session", "run")
    return Definitions(database, clock, dict.fromkeys(kinds, anybody), events=events)


@pytest.fixture
def rollups(database: Database) -> Rollups:
    return Rollups(database)
