"""What a server does: everything by itself, or one part of it among others on the same database."""

from dataclasses import dataclass

from stationmaster.settings import Settings


@dataclass(frozen=True, slots=True)
class Duties:
    """`serves` the API; `works`: runs agents, jobs, batches; `keeps`: periodic work, if it leads.

    Every server notices the dead, counts rates and hears news.
    """

    serves: bool
    works: bool
    keeps: bool


_DUTIES = {
    "all": Duties(serves=True, works=True, keeps=True),
    "api": Duties(serves=True, works=False, keeps=False),
    "worker": Duties(serves=False, works=True, keeps=False),
    "scheduler": Duties(serves=False, works=False, keeps=True),
}


def duties(settings: Settings) -> Duties:
    """Those of the settings' ROLE."""
    return _DUTIES[settings.role]


def port(settings: Settings) -> int:
    """Where it listens."""
    own = {"worker": settings.worker_port, "scheduler": settings.scheduler_port}
    return own.get(settings.role, settings.port)
