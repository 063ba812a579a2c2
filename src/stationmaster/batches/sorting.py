"""Which requests of a batch go into batches of their providers, decided as it is made."""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from stationmaster.batches.batch import NewRequest, Operation
from stationmaster.gateway.deferred import Ask, Destination
from stationmaster.kernel.principal import Principal

BETWEEN = 50
"""Requests that are read before others have their turn on the event loop."""


class Sorting(Protocol):
    """Knows the way of each request. The gateway is behind it."""

    @property
    def offered(self) -> bool:
        """Whether any can go there."""
        ...

    def destination(self, principal: Principal, ask: Ask) -> Destination | None:
        """Where it goes; None where it is made as any other call."""
        ...


class Sorter:
    """Sorts the requests of one batch, piece by piece."""

    def __init__(
        self,
        sorting: Sorting | None,
        principal: Principal,
        operation: Operation,
        headers: Sequence[tuple[str, str]],
    ) -> None:
        self._sorting = sorting if sorting is not None and sorting.offered else None
        self._principal = principal
        self._operation = operation
        self._headers = headers
        self._found: dict[Destination, int] = {}
        self.sorted = 0
        """How many of them go there."""

    async def places(self, requests: Sequence[NewRequest]) -> list[int | None]:
        """The place of each one's destination in `noted`; None where it is made as a call."""
        if self._sorting is None:
            return [None] * len(requests)
        places: list[int | None] = []
        for read, request in enumerate(requests):
            if read % BETWEEN == 0:
                await asyncio.sleep(0)
            ask = Ask(self._operation, request.body.encode(), self._headers)
            found = self._sorting.destination(self._principal, ask)
            if found is None:
                places.append(None)
            else:
                places.append(self._found.setdefault(found, len(self._found)))
                self.sorted += 1
        return places

    def noted(self) -> list[dict[str, Any]]:
        """The destinations, as they are written down."""
        return [
            {
                "provider": each.provider,
                "model": each.model,
                "prices": each.prices,
                "share": str(each.share),
            }
            for each in self._found
        ]
