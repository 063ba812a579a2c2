"""The audit log on a fresh database."""

import pytest

from stationmaster.audit import Audit, Chains, Keyring
from stationmaster.kernel.clock import ManualClock
from stationmaster.storage import Database
from stationmaster.storage.sealing import Sealer


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def keyring(database: Database, clock: ManualClock) -> Keyring:
    made = Keyring(database, Sealer([b"a secret of the operator's"]), clock)
    await made.prepare()
    return made


@pytest.fixture
def audit(database: Database, keyring: Keyring, clock: ManualClock) -> Audit:
    return Audit(database, keyring, clock)


@pytest.fixture
def chains(database: Database, keyring: Keyring, clock: ManualClock) -> Chains:
    return Chains(database, keyring, clock)
