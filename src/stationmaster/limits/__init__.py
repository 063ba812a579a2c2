"""Rate limits: how fast, how much at once. What it costs is `budgets`' concern."""

from stationmaster.limits.grant import Grant, Quota, RateLimited, Standing
from stationmaster.limits.limiter import Failures, Limiter
from stationmaster.limits.memory import MemoryStore
from stationmaster.limits.policy import Kind, Policy
from stationmaster.limits.rate import Rate
from stationmaster.limits.store import Store

__all__ = [
    "Failures",
    "Grant",
    "Kind",
    "Limiter",
    "MemoryStore",
    "Policy",
    "Quota",
    "Rate",
    "RateLimited",
    "Standing",
    "Store",
]
