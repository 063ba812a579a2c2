"""Money: budgets, holds and the ledger. Reserve before a call, settle after it."""

from stationmaster.budgets.account import Budget, Budgets
from stationmaster.budgets.definition import Changes, DefinedBudget, Definitions, Terms
from stationmaster.budgets.entry import (
    CallContext,
    LedgerEntry,
    Outcome,
    Refused,
    Reserved,
    Usage,
)
from stationmaster.budgets.report import Period, Reports, Row, Sought, UsageReport
from stationmaster.budgets.requests import SpendRequest, SpendRequests
from stationmaster.budgets.rollup import Rollups

__all__ = [
    "Budget",
    "Budgets",
    "CallContext",
    "Changes",
    "DefinedBudget",
    "Definitions",
    "LedgerEntry",
    "Outcome",
    "Period",
    "Refused",
    "Reports",
    "Reserved",
    "Rollups",
    "Row",
    "Sought",
    "SpendRequest",
    "SpendRequests",
    "Terms",
    "Usage",
    "UsageReport",
]
