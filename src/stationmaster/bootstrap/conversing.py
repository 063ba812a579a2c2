"""Sessions: their verbs, and the seats of their agents."""

from dataclasses import dataclass

from stationmaster.agents.pool import Pool
from stationmaster.bootstrap.hosting import hosting
from stationmaster.bootstrap.limiting import shares
from stationmaster.bootstrap.parts import Core
from stationmaster.sessions.approvals import Approvals
from stationmaster.sessions.birth import Births
from stationmaster.sessions.catalogue import Catalogue
from stationmaster.sessions.hosting import Hosting
from stationmaster.sessions.mounts import Mounts
from stationmaster.sessions.resources import Resources
from stationmaster.sessions.runs.seats import Seats, Surroundings
from stationmaster.sessions.sending import Sending
from stationmaster.sessions.sessions import Sessions
from stationmaster.settings import Settings


@dataclass(frozen=True, slots=True)
class Conversing:
    """What sessions need of a server."""

    sessions: Sessions
    resources: Resources
    approvals: Approvals
    hosting: Hosting


def seats(core: Core, pool: Pool, offers: Catalogue, surroundings: Surroundings) -> Seats:
    """Where agents sit."""
    return Seats(
        pool=pool,
        database=core.database,
        events=core.events,
        records=core.records,
        tokens=core.tokens,
        files=core.files,
        transcripts=core.transcripts,
        catalogue=offers,
        surroundings=surroundings,
    )


def conversing(core: Core, settings: Settings, offers: Catalogue, seated: Seats) -> Conversing:
    """The verbs on sessions, their resources, approvals, and the work of workers elsewhere."""
    hosted = hosting(core, settings)
    sending = Sending(
        records=core.records,
        settlement=core.settlement,
        turns=core.turns,
        bus=core.bus,
        clock=core.clock,
        max_queue=settings.max_queue,
        shares=shares(settings),
        work=hosted.queue,
    )
    births = Births(
        records=core.records.sessions,
        events=core.events,
        budgets=core.budgets,
        clock=core.clock,
        work=hosted.queue,
    )
    mounts = Mounts(core.stored_files, core.clock, quota=settings.workspace_quota)
    return Conversing(
        sessions=Sessions(
            database=core.database,
            events=core.events,
            records=core.records.sessions,
            births=births,
            sending=sending,
            work=hosted.queue,
            budgets=core.budgets,
            outbox=core.dispatching.outbox,
            clock=core.clock,
            catalogue=offers,
            files=core.files,
            mounts=mounts,
            transcripts=core.transcripts,
            seating=seated,
        ),
        resources=Resources(
            database=core.database,
            records=core.records.sessions,
            files=core.files,
            mounts=mounts,
        ),
        approvals=Approvals(
            database=core.database,
            sessions=core.records.sessions,
            bus=core.bus,
            clock=core.clock,
        ),
        hosting=hosted,
    )
