"""Access on a fresh database."""

import pytest

from stationmaster.access import Keys, Resolver, RunTokens
from stationmaster.access.secret import Hasher
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.principal import Owner, Principal
from stationmaster.storage import Database

PEPPER = b"a pepper for the tests"
DEFAULT = Owner("org_default", "proj_default")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def hasher() -> Hasher:
    return Hasher(PEPPER)


@pytest.fixture
def resolver(database: Database, hasher: Hasher, clock: ManualClock) -> Resolver:
    return Resolver(database, hasher, clock)


@pytest.fixture
def keys(database: Database, hasher: Hasher, clock: ManualClock, resolver: Resolver) -> Keys:
    return Keys(database, hasher, clock, resolver)


@pytest.fixture
def tokens(hasher: Hasher, clock: ManualClock, resolver: Resolver) -> RunTokens:
    return RunTokens(hasher, clock, forget=resolver.forget)


@pytest.fixture
async def admin(keys: Keys, resolver: Resolver) -> Principal:
    """The key of the first start."""
    secret = await keys.bootstrap(admin=None, given=[])
    return await resolver.resolve(secret)
