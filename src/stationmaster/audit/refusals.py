"""Refused access, on record without letting whoever is refused fill the log.

Refusals are counted by who, from where and why, and written every few seconds, an entry for each.
A server that is killed loses what it had counted since; its log lines remain.
"""

import asyncio
from dataclasses import dataclass

import structlog

from stationmaster.audit.entry import Actor
from stationmaster.audit.recorder import Recorder
from stationmaster.kernel.errors import Unavailable
from stationmaster.kernel.origin import Origin
from stationmaster.kernel.principal import Owner
from stationmaster.storage import Database, Transaction

log = structlog.get_logger(__name__)

ACTION = "access.refused"
FLUSH_S = 10.0
MOST = 1000  # entries between two flushes; what is beyond is counted as one
_MANY = "many"


@dataclass(slots=True)
class _Counted:
    actor: Actor
    status: int
    endpoint: str
    count: int = 0


class Refusals:
    """Counts them. `note` is for the event loop alone."""

    def __init__(self, database: Database, recorder: Recorder, operator: Owner) -> None:
        """Refusals of callers that nobody knows are in the chain of `operator`."""
        self._database = database
        self._recorder = recorder
        self._operator = operator
        self._counted: dict[tuple[str, str | None, int], _Counted] = {}

    def note(self, origin: Origin, *, status: int, endpoint: str) -> None:
        """Somebody was refused. `endpoint` is a route's template."""
        if origin.principal is None:
            actor = Actor.named("anonymous", "", self._operator, origin)
        else:
            actor = Actor.of(origin.principal, origin)
        key = (actor.id, actor.address, status)
        if key not in self._counted and len(self._counted) >= MOST:
            actor = Actor("anonymous", _MANY, "", self._operator.organization_id, None, None, None)
            key = (_MANY, None, 0)
        counted = self._counted.setdefault(key, _Counted(actor, status, endpoint))
        counted.count += 1

    async def flush(self) -> None:
        """Write what has been counted; where the database is away, keep it for the next time."""
        if not self._counted:
            return
        counted, self._counted = self._counted, {}

        def verb(tx: Transaction) -> None:
            # In one order: two replicas that lock several chains must not wait for each other.
            for item in sorted(counted.values(), key=lambda item: item.actor.organization_id):
                self._recorder.record(
                    tx,
                    item.actor,
                    ACTION,
                    target=item.endpoint,
                    outcome="refused",
                    details={"status": item.status, "count": item.count},
                )

        try:
            await self._database.write(verb)
        except Unavailable as error:
            if error.error_code != "commit_unknown":
                self._keep(counted)
            log.warning("Refused access could not be put on record yet.", code=error.error_code)

    def _keep(self, counted: dict[tuple[str, str | None, int], _Counted]) -> None:
        for key, item in counted.items():
            if key in self._counted:
                self._counted[key].count += item.count
            elif len(self._counted) < MOST:
                self._counted[key] = item

    async def run(self) -> None:
        """Flush every few seconds, and once more at the end."""
        try:
            while True:
                await asyncio.sleep(FLUSH_S)
                await self.flush()
        finally:
            await self.flush()
