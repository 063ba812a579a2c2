"""Money in this API: cents as text, rounded up, for our integer micro-dollars."""

from typing import Any

from stationmaster.http.shapes.managed.session import SessionBudgetRequest
from stationmaster.kernel.money import MicroDollars

_PER_CENT = 10_000  # micro-dollars


def cents(amount: MicroDollars) -> str:
    """An amount as the API writes it."""
    return str(-(-amount // _PER_CENT))


def micros(budget: SessionBudgetRequest | None) -> MicroDollars | None:
    """A ceiling as we keep it."""
    return None if budget is None else int(budget.max_list_cost.amount) * _PER_CENT


def budget_json(amount: MicroDollars) -> dict[str, Any]:
    """A ceiling as the API shows it."""
    return {"type": "limit", "max_list_cost": {"amount": cents(amount), "currency": "USD"}}
