"""Where counts are kept."""

from typing import Protocol

from stationmaster.limits.grant import Grant, Refusal
from stationmaster.limits.plan import Amounts, Plan


class Store(Protocol):
    """Counts of rates, and places. One suite holds every store to this (`tests/contract`).

    Over all lines of a plan, `take` is one step: a refusal has taken nothing from any of them.
    """

    async def take(self, plan: Plan, amounts: Amounts) -> Grant | Refusal:
        """Count a request against every line of its plan, or against none.

        Where the caller is cancelled meanwhile, a place that it was given becomes free again.
        """
        ...

    async def run(self) -> None:
        """What goes on beside requests. Never ends by itself."""
        ...

    async def aclose(self) -> None:
        """Let go of what is open. Places held by grants of this store become free."""
        ...
