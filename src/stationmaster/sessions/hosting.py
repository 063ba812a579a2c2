"""Environments, with the keys and the work of those whose tools are run elsewhere."""

from dataclasses import dataclass

from stationmaster.sessions.environment_keys import EnvironmentKeys
from stationmaster.sessions.environments import Environments
from stationmaster.sessions.work import Work
from stationmaster.sessions.work_queue import WorkQueue


@dataclass(frozen=True, slots=True)
class Hosting:
    """The verbs on them. `queue` is for who makes work."""

    environments: Environments
    keys: EnvironmentKeys
    queue: WorkQueue
    work: Work
