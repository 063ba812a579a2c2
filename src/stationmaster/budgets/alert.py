"""Alerts: the thresholds of a budget, and what is written into the book when one is crossed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, update

from stationmaster.budgets.entry import Mode, Unit
from stationmaster.budgets.tables import budgets
from stationmaster.events import EventLog, NewEvent
from stationmaster.kernel.principal import Owner
from stationmaster.storage import Transaction

ALERT = "budget.alert"
LOW_TOKENS = 1_000


@dataclass(frozen=True, slots=True)
class Alerts:
    """When to tell: at `percent` of the limit spent, or with less than `remaining` left."""

    percent: tuple[int, ...] = ()
    remaining: tuple[int, ...] = ()

    def to_json(self) -> dict[str, list[int]]:
        """As it is kept."""
        return {"percent": list(self.percent), "remaining": list(self.remaining)}

    @classmethod
    def from_json(cls, data: dict[str, list[int]] | None) -> "Alerts":
        """From `to_json`."""
        kept = data or {}
        return cls(tuple(kept.get("percent", ())), tuple(kept.get("remaining", ())))

    def levels(self, limit: int) -> list[tuple[int, dict[str, int]]]:
        """The spending at which each is due, ascending, with its threshold."""
        found = [(-(-limit * each // 100), {"percent": each}) for each in self.percent]
        found += [(limit - each + 1, {"remaining": each}) for each in self.remaining]
        # What holds before anything is spent is told with the first spending.
        return sorted(((max(1, level), what) for level, what in found), key=lambda each: each[0])

    def next_after(self, spent: int, limit: int) -> int | None:
        """The spending at which the next is due; None where all have been told."""
        return next((level for level, _ in self.levels(limit) if level > spent), None)


def usual(mode: Mode, unit: Unit, limit: int) -> Alerts:
    """The thresholds where none are chosen."""
    return Alerts(
        percent=(90,) if mode == "hard" else (90, 100),
        remaining=(LOW_TOKENS,) if unit == "tokens" and limit > LOW_TOKENS else (),
    )


def stream_of(project_id: str) -> str:
    """The stream of a project's alerts."""
    return f"budgets:{project_id}"


def tell(tx: Transaction, events: EventLog | None, budget_ids: Sequence[str]) -> None:
    """Write down the alerts that have become due, each once.

    In the transaction that spends, which has the budgets' rows locked: nobody else tells it too.
    """
    rows = tx.execute(
        select(budgets).where(budgets.c.id.in_(budget_ids)).order_by(budgets.c.id)
    ).all()
    for row in rows:
        alerts = Alerts.from_json(row.alerts)
        due = [
            what for level, what in alerts.levels(row.limit) if row.alert_at <= level <= row.spent
        ]
        tx.execute(
            update(budgets)
            .where(budgets.c.id == row.id)
            .values(alert_at=alerts.next_after(row.spent, row.limit))
        )
        if events is None:
            continue
        owner = Owner(row.organization_id, row.project_id)
        stream = stream_of(row.project_id)
        events.ensure(tx, stream, "budgets", owner)
        events.append(tx, stream, [NewEvent(ALERT, _data(row, what)) for what in due])


def _data(row: Any, what: dict[str, int]) -> dict[str, Any]:
    return {
        "budget_id": row.id,
        "subject": {"type": row.subject_kind, "id": row.subject_id},
        "unit": row.unit,
        "mode": row.mode,
        "period": row.period,
        "period_start": row.period_start,
        "threshold": what,
        "limit": row.limit,
        "spent": row.spent,
        "remaining": max(0, row.limit - row.spent),
    }
