"""Sessions: their verbs, and the seats of their agents."""

from dataclasses import dataclass

from stationmaster.access import WorkTokens
from stationmaster.access.secret import Hasher
from stationmaster.agents.pool import Pool
from stationmaster.bootstrap.limiting import shares
from stationmaster.bootstrap.parts import Core
from stationmaster.sessions.approvals import Approvals
from stationmaster.sessions.birth import Births
from stationmaster.sessions.catalogue import Catalogue
from stationmaster.sessions.environment_keys import EnvironmentKeys
from stationmaster.sessions.environments import Environments
from stationmaster.sessions.mounts import Mounts
from stationmaster.sessions.resources import Resources
from stationmaster.sessions.runs.seats import Seats, Surroundings
from stationmaster.sessions.sending import Sending
from stationmaster.sessions.sessions import Sessions
from stationmaster.sessions.work import Work
from stationmaster.sessions.work_queue import WorkQueue
from stationmaster.settings import Settings


@dataclass(frozen=True, slots=True)
class Conversing:
    """What sessions need of a server."""

    sessions: Sessions
    resources: Resources
    approvals: Approvals
    environments: Environments
    environment_keys: EnvironmentKeys
    work: Work


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
    tokens = WorkTokens(Hasher(core.secret.encode()), core.clock, forget=core.resolver.forget)
    queue = WorkQueue(
        records=core.records.sessions,
        tokens=tokens,
        bus=core.bus,
        clock=core.clock,
        lease_time=settings.work_lease_time,
    )
    sending = Sending(
        records=core.records,
        settlement=core.settlement,
        turns=core.turns,
        bus=core.bus,
        clock=core.clock,
        max_queue=settings.max_queue,
        shares=shares(settings),
        work=queue,
    )
    births = Births(
        records=core.records.sessions,
        events=core.events,
        budgets=core.budgets,
        clock=core.clock,
        work=queue,
    )
    environments = Environments(database=core.database, clock=core.clock)
    mounts = Mounts(core.stored_files, core.clock, quota=settings.workspace_quota)
    return Conversing(
        sessions=Sessions(
            database=core.database,
            events=core.events,
            records=core.records.sessions,
            births=births,
            sending=sending,
            work=queue,
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
        environments=environments,
        environment_keys=EnvironmentKeys(
            environments=environments, keys=core.keys, clock=core.clock
        ),
        work=Work(
            database=core.database,
            records=core.records.sessions,
            queue=queue,
            tokens=tokens,
            bus=core.bus,
            clock=core.clock,
            lease_time=settings.work_lease_time,
        ),
    )
