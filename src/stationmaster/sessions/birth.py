"""How a session begins: its row, its stream, its budget and its first event, together."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert

from stationmaster.budgets import Budgets
from stationmaster.events import EventLog, NewEvent
from stationmaster.kernel.clock import Clock
from stationmaster.kernel.errors import Invalid
from stationmaster.kernel.money import MicroDollars
from stationmaster.kernel.principal import Owner
from stationmaster.sessions.checks import bounded
from stationmaster.sessions.record import SessionRecords
from stationmaster.sessions.runs.files import Place
from stationmaster.sessions.session import Session
from stationmaster.sessions.state import CREATED
from stationmaster.sessions.tables import sessions
from stationmaster.sessions.work_queue import WorkQueue
from stationmaster.storage import Transaction

MAX_TITLE_BYTES = 2000
MAX_BUDGET: MicroDollars = 10**12  # a million dollars
NO_LIMIT: MicroDollars = 2**60


@dataclass(frozen=True, slots=True)
class Born:
    """What a session is when it begins. `place` is None where it has no files yet."""

    id: str
    owner: Owner
    key_id: str
    agent: dict[str, Any]
    environment_id: str | None
    title: str | None
    metadata: dict[str, str]
    budget: MicroDollars | None
    on_crash: str
    rules: tuple[dict[str, Any], ...] = ()
    resources: tuple[dict[str, Any], ...] = ()
    place: Place | None = None
    forked_from: dict[str, Any] | None = None
    history: str | None = None
    position: str | None = None
    self_hosted: bool = False


class Births:
    """Makes sessions, inside callers' transactions."""

    def __init__(
        self,
        *,
        records: SessionRecords,
        events: EventLog,
        budgets: Budgets,
        clock: Clock,
        work: WorkQueue,
    ) -> None:
        self._records = records
        self._events = events
        self._budgets = budgets
        self._clock = clock
        self._work = work

    def bear(self, tx: Transaction, born: Born) -> Session:
        """Make it."""
        now, place = self._clock.now(), born.place
        tx.execute(
            insert(sessions),
            {
                "id": born.id,
                "organization_id": born.owner.organization_id,
                "project_id": born.owner.project_id,
                "key_id": born.key_id,
                "workspace": "" if place is None else str(place.workspace),
                "scope": "" if place is None else str(place.scope),
                "directory": "" if place is None else str(place.directory),
                "created_at": now,
                "kind": "session",
                "agent_id": born.agent["id"],
                "agent_version": born.agent["version"],
                "model": born.agent["model"]["id"],
                "environment_id": born.environment_id,
                "self_hosted": born.self_hosted,
                "on_crash": born.on_crash,
                "forked_from": born.forked_from,
                "metadata": {},
                "queue": (),
                "always": (),
                "rules": (),
                "resources": (),
                "usage": {},
            },
        )
        self._events.create(tx, born.id, "session", born.owner)
        limit = NO_LIMIT if born.budget is None else born.budget
        # One without a limit too: a limit that comes later counts what was spent before.
        self._budgets.open(tx, born.owner, "session", born.id, limit)
        data = {
            "agent": born.agent,
            "environment_id": born.environment_id,
            "title": born.title,
            "metadata": born.metadata,
            "budget": born.budget,
            "on_crash": born.on_crash,
            "rules": list(born.rules),
            "resources": list(born.resources),
            "history": born.history,
            "position": born.position,
        }
        if born.forked_from is not None:
            data["forked_from"] = born.forked_from
        self._records.append(tx, born.id, [NewEvent(CREATED, data)])
        session = self._records.get(tx, born.id)
        self._work.ensure(tx, session)
        return session


def check_title(title: Any) -> str | None:
    """A session's title. Raises `Invalid` and `TooLarge`."""
    return None if title is None else bounded(title, MAX_TITLE_BYTES, "title")


def check_budget(budget: Any) -> MicroDollars | None:
    """A session's budget in micro-dollars. Raises `Invalid`."""
    if budget is None:
        return None
    if not isinstance(budget, int) or isinstance(budget, bool) or not 0 <= budget <= MAX_BUDGET:
        raise Invalid("budget is not an amount that can be spent.", param="budget")
    return budget
