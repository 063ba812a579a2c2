"""The outbox on a fresh database."""

from collections.abc import Callable

import pytest

from stationmaster.jobs import Handler, Outbox, Runner
from stationmaster.kernel.clock import ManualClock
from stationmaster.live.bus import MemoryBus
from stationmaster.storage import Database

MakeRunner = Callable[..., Runner]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus()


@pytest.fixture
def outbox(bus: MemoryBus, clock: ManualClock) -> Outbox:
    return Outbox(bus, clock)


@pytest.fixture
def runner(database: Database, bus: MemoryBus, clock: ManualClock) -> MakeRunner:
    """Makes runners of an instance, given its id and handlers by name."""

    def make(instance_id: str = "ins_a", **handlers: Handler) -> Runner:
        return Runner(database, bus, clock, handlers, instance_id=instance_id)

    return make
