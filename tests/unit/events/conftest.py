"""The book on a fresh database."""

import pytest

from stationmaster.events import EventLog
from stationmaster.kernel.clock import ManualClock
from stationmaster.live.bus import MemoryBus
from stationmaster.storage import Database


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus()


@pytest.fixture
def log(database: Database, bus: MemoryBus, clock: ManualClock) -> EventLog:
    return EventLog(database, bus, clock)
