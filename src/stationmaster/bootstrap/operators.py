"""Keys and jobs without a server, for whoever has the machine."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from stationmaster.access import Keys, Resolver
from stationmaster.access.keys import DEFAULT_OWNER
from stationmaster.access.secret import Hasher
from stationmaster.audit import Actor
from stationmaster.bootstrap.identity import OnRecord, on_record
from stationmaster.bootstrap.timekeeping import timekeeping
from stationmaster.jobs import Outbox
from stationmaster.jobs.inventory import Inventory, Listed, Note
from stationmaster.kernel.clock import Clock, SystemClock
from stationmaster.kernel.principal import ALL, Principal
from stationmaster.migrations import migrate
from stationmaster.settings import Settings, load_secret_key
from stationmaster.storage import Database, Transaction, open_database
from stationmaster.telemetry import Redactor


@asynccontextmanager
async def operators_keys(settings: Settings) -> AsyncIterator[Keys]:
    """Open the database, up to date. Servers may be at work on it.

    Raises `Unavailable` and `SchemaError`.
    """
    async with _opened(settings) as (database, clock, record, secret):
        hasher = Hasher(secret.encode())
        resolver = Resolver(database, hasher, clock)
        yield Keys(database, hasher, clock, resolver, recorder=record.audit)


OPERATOR = Principal("key", "operator", DEFAULT_OWNER, "operator", frozenset({ALL}))
"""Whoever has the machine. Stands in where a verb asks for a principal, and is never a key's."""


def inventory(
    database: Database,
    clock: Clock,
    record: OnRecord,
    redactor: Redactor,
    *,
    actor: Callable[[Principal], Actor] = Actor.of,
    outbox: Outbox | None = None,
) -> Inventory:
    """The jobs. What is done with them goes on record as done by `actor`.

    With the server's `outbox` its workers are told of those that are to be tried again.
    """

    def noting(principal: Principal) -> Note:
        who = actor(principal)

        def note(tx: Transaction, action: str, job: Listed) -> None:
            details = {"kind": job.kind, "attempts": job.attempts}
            record.audit.record(tx, who, action, target=job.id, details=details)

        return note

    operators = DEFAULT_OWNER.organization_id
    return Inventory(
        database, clock, operators=operators, noting=noting, mask=redactor.scrub, outbox=outbox
    )


@asynccontextmanager
async def operators_jobs(settings: Settings) -> AsyncIterator[Inventory]:
    """Open the database as `operators_keys` does. What `OPERATOR` does with jobs goes on record."""
    async with _opened(settings) as (database, clock, record, secret):
        operator = Actor.named("operator", "", DEFAULT_OWNER)
        redactor = Redactor(*settings.secrets(), secret)
        yield inventory(database, clock, record, redactor, actor=lambda _: operator)


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[tuple[Database, Clock, OnRecord, str]]:
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    secret = (settings.secret_key or load_secret_key(settings.data_dir)).get_secret_value()
    url = settings.database_url.get_secret_value()
    await migrate(url)
    database = open_database(url)
    try:
        clock, _ = await timekeeping(database, SystemClock(), settings.lease_time)
        yield database, clock, await on_record(database, settings, secret, clock), secret
    finally:
        await database.close()
