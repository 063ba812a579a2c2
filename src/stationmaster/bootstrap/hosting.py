"""Environments, and the work of those whose tools are run elsewhere."""

from stationmaster.access import WorkTokens
from stationmaster.access.secret import Hasher
from stationmaster.bootstrap.parts import Core
from stationmaster.sessions.environment_keys import EnvironmentKeys
from stationmaster.sessions.environments import Environments
from stationmaster.sessions.hosting import Hosting
from stationmaster.sessions.work import Work
from stationmaster.sessions.work_queue import WorkQueue
from stationmaster.settings import Settings


def hosting(core: Core, settings: Settings) -> Hosting:
    """The verbs on environments, on their keys and on their work."""
    tokens = WorkTokens(Hasher(core.secret.encode()), core.clock, forget=core.resolver.forget)
    queue = WorkQueue(
        records=core.records.sessions,
        tokens=tokens,
        bus=core.bus,
        clock=core.clock,
        lease_time=settings.work_lease_time,
    )
    environments = Environments(database=core.database, clock=core.clock)
    return Hosting(
        environments=environments,
        keys=EnvironmentKeys(environments=environments, keys=core.keys, clock=core.clock),
        queue=queue,
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
