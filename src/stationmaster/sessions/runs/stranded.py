"""Uploads whose task works elsewhere: its server died, or failed, before it had moved them.

A task that gets a waiting agent works in that agent's directories. The book says so first, and then
the upload is moved there. What is cut in between leaves the upload where nobody looks for it.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import PurePath

from sqlalchemy import exists, select

from stationmaster.sessions.runs.files import RunFiles
from stationmaster.sessions.runs.state import UNFINISHED
from stationmaster.sessions.tables import runs, sessions
from stationmaster.storage import Database, Transaction

SLOT = "slot_"  # what the names of an agent's own directories begin with
_AT_ONCE = 500  # names in one query


async def sweep_stranded(database: Database, files: RunFiles) -> int:
    """Delete the uploads of ended tasks that were never moved; return how many.

    A directory without a row stays: its task may be about to be written down, or the database may
    be an older one, and then it is all that is left.
    """
    gone = 0
    names = await asyncio.to_thread(files.prepared)
    for start in range(0, len(names), _AT_ONCE):
        some = names[start : start + _AT_ONCE]
        for name in await database.read(partial(_stranded, names=some)):
            gone += await asyncio.to_thread(files.strip, name)
    return gone


def _stranded(tx: Transaction, names: Sequence[str]) -> list[str]:
    at_work = exists().where(runs.c.session_id == sessions.c.id, runs.c.state.in_(UNFINISHED))
    query = select(sessions.c.id, sessions.c.workspace).where(
        sessions.c.id.in_(names), sessions.c.kind == "task", ~at_work
    )
    # Only the name tells: a path may be another one since the workspaces were moved as a whole.
    return [row.id for row in tx.execute(query) if PurePath(row.workspace).name.startswith(SLOT)]
