"""What budgets need of the other capabilities, and what runs for them beside the requests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog

from stationmaster.access.owners import Owners
from stationmaster.bootstrap.parts import Core
from stationmaster.budgets import Budgets, Definitions, SpendRequests
from stationmaster.kernel.errors import Conflict, Unavailable
from stationmaster.kernel.principal import Owner, Principal
from stationmaster.migrations import HEAD, current
from stationmaster.sessions.runs.runs import Runs
from stationmaster.settings import Settings
from stationmaster.storage import Database, open_database

log = structlog.get_logger(__name__)

RECONCILE_S = 2.0


def definitions(core: Core, runs: Runs) -> Definitions:
    """The verbs on budgets, which know whose a subject is."""
    owners = Owners(core.database)

    async def of_session(principal: Principal, session_id: str) -> Owner:
        return await core.events.owner_of(session_id, "session")

    async def of_run(principal: Principal, run_id: str) -> Owner:
        return (await runs.get(principal, run_id)).owner

    return Definitions(
        core.database,
        core.clock,
        {
            "project": owners.of_project,
            "key": owners.of_key,
            "user": owners.of_user,
            "session": of_session,
            "run": of_run,
        },
        events=core.events,
        recorder=core.record.audit,
    )


def requests(core: Core, definitions: Definitions) -> SpendRequests:
    """The verbs on requests for a higher spend limit."""
    return SpendRequests(
        core.database, core.clock, definitions, events=core.events, recorder=core.record.audit
    )


@asynccontextmanager
async def books(settings: Settings) -> AsyncIterator[Database]:
    """The database without a server, as it is; servers may be at work on it.

    Raises `Unavailable`, and `Conflict` where its schema is not this version's.
    """
    url = settings.database_url.get_secret_value()
    found = await current(url)
    if found != HEAD:
        raise Conflict(f"The schema is {found or 'not there yet'}; this version needs {HEAD}.")
    database = open_database(url)
    try:
        yield database
    finally:
        await database.close()


async def reconcile(budgets: Budgets) -> None:
    """Settle for ever what could not be settled when it was due, and once more at the end."""
    try:
        while True:
            try:
                await budgets.reconcile()
            except Unavailable:
                log.warning("Calls cannot be settled now; trying again.")
            await asyncio.sleep(RECONCILE_S)
    finally:
        with suppress(Unavailable):
            await budgets.reconcile()
