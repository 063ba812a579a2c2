"""Keys without a server, for whoever has the machine."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from stationmaster.access import Keys, Resolver
from stationmaster.access.secret import Hasher
from stationmaster.bootstrap.identity import on_record
from stationmaster.kernel.clock import SystemClock
from stationmaster.migrations import migrate
from stationmaster.settings import Settings, load_secret_key
from stationmaster.storage import open_database


@asynccontextmanager
async def operators_keys(settings: Settings) -> AsyncIterator[Keys]:
    """Open the database, up to date. Servers may be at work on it.

    Raises `Unavailable` and `SchemaError`.
    """
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    secret = (settings.secret_key or load_secret_key(settings.data_dir)).get_secret_value()
    url, clock = settings.database_url.get_secret_value(), SystemClock()
    await migrate(url)
    database = open_database(url)
    try:
        hasher = Hasher(secret.encode())
        record = await on_record(database, settings, secret, clock)
        resolver = Resolver(database, hasher, clock)
        yield Keys(database, hasher, clock, resolver, recorder=record.audit)
    finally:
        await database.close()
