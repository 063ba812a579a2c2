"""Runs and their sessions as rows, many at once: without books, budgets and files."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert

from stationmaster.kernel.ids import new_id
from stationmaster.sessions.tables import runs, sessions
from stationmaster.storage import Database, Transaction

AT = 1_800_000_000_000


@dataclass(frozen=True, slots=True)
class Row:
    """A run. `asks` is one that is at work, and waits for somebody."""

    id: str
    organization: str
    key: str
    priority: int = 0
    state: str = "queued"
    queued_at: int = AT
    started_at: int | None = None
    asks: bool = False


async def put(database: Database, rows: Iterable[Row]) -> None:
    """Insert them."""
    made, begun = [], []
    for row in rows:
        session_id = new_id("sesn")
        owner: dict[str, Any] = {
            "organization_id": row.organization,
            "project_id": "proj",
            "key_id": row.key,
        }
        made.append(
            {
                "id": session_id,
                "workspace": "",
                "scope": "",
                "directory": "",
                "created_at": AT,
                "metadata": {},
                "queue": (),
                "always": (),
                "rules": (),
                "usage": {},
                "status": "running" if row.state == "running" and not row.asks else "idle",
                **owner,
            }
        )
        begun.append(
            {
                "id": row.id,
                "session_id": session_id,
                "options": {},
                "state": row.state,
                "epoch": 0,
                "queued_at": row.queued_at,
                "started_at": row.started_at,
                "cancel_requested": False,
                "turns": 0,
                "usage": {},
                "cost": 0,
                "model_calls": 0,
                "artifacts": {},
                "priority": row.priority,
                **owner,
            }
        )

    def verb(tx: Transaction) -> None:
        tx.execute(insert(sessions), made)
        tx.execute(insert(runs), begun)

    await database.write(verb)
