"""A pool as in the real server, on a database and a directory of a test's."""

from collections.abc import Callable
from pathlib import Path

from stationmaster.access import RunTokens
from stationmaster.agents.base import Agent
from stationmaster.agents.pool import Pool
from stationmaster.agents.slots import PoolLimits, Source
from stationmaster.bootstrap.pooling import DatabaseTokens, SessionPlaces
from stationmaster.sessions.runs.workspace import Workspaces
from stationmaster.storage import Database

COLD = PoolLimits(size=0, idle=0)


def pool_of(
    agent: Agent,
    database: Database,
    tokens: RunTokens,
    directory: Path,
    limits: PoolLimits = COLD,
    *,
    on_take: Callable[[Source], None] = lambda _source: None,
) -> Pool:
    """A pool in `directory`, as `tests.support.core` lays it out; by default nothing is kept."""
    places = SessionPlaces(Workspaces(directory / "workspaces"), directory / "state")
    return Pool(agent, DatabaseTokens(database, tokens), places, limits, on_take=on_take)
