"""A store of histories on each database."""

import pytest

from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.principal import Owner
from stationmaster.storage import Database
from stationmaster.transcripts import Transcripts

MAX_SIZE = 100_000
ALICE = Owner("org_a", "proj_a")
SESSION = "sesn_1"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def transcripts(database: Database, clock: ManualClock) -> Transcripts:
    return Transcripts(database, clock, max_size=MAX_SIZE)
