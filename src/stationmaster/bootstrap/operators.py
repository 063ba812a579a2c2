"""Keys and jobs without a server, for whoever has the machine."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from stationmaster.access import Keys, Resolver
from stationmaster.access.keys import DEFAULT_OWNER
from stationmaster.access.secret import Hasher
from stationmaster.audit import Actor
from stationmaster.bootstrap.identity import OnRecord, on_record
from stationmaster.jobs.inventory import Inventory, Listed
from stationmaster.kernel.clock import SystemClock
from stationmaster.migrations import migrate
from stationmaster.settings import Settings, load_secret_key
from stationmaster.storage import Database, Transaction, open_database


@asynccontextmanager
async def operators_keys(settings: Settings) -> AsyncIterator[Keys]:
    """Open the database, up to date. Servers may be at work on it.

    Raises `Unavailable` and `SchemaError`.
    """
    async with _opened(settings) as (database, record, secret):
        hasher, clock = Hasher(secret.encode()), SystemClock()
        resolver = Resolver(database, hasher, clock)
        yield Keys(database, hasher, clock, resolver, recorder=record.audit)


@asynccontextmanager
async def operators_jobs(settings: Settings) -> AsyncIterator[Inventory]:
    """Open the database as `operators_keys` does. What is done with jobs goes on record."""
    async with _opened(settings) as (database, record, _secret):
        actor = Actor.named("operator", "", DEFAULT_OWNER)

        def note(tx: Transaction, action: str, job: Listed) -> None:
            details = {"kind": job.kind, "attempts": job.attempts}
            record.audit.record(tx, actor, action, target=job.id, details=details)

        yield Inventory(database, SystemClock(), note=note)


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[tuple[Database, OnRecord, str]]:
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    secret = (settings.secret_key or load_secret_key(settings.data_dir)).get_secret_value()
    url = settings.database_url.get_secret_value()
    await migrate(url)
    database = open_database(url)
    try:
        yield database, await on_record(database, settings, secret, SystemClock()), secret
    finally:
        await database.close()
