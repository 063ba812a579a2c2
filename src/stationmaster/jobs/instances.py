"""Which server processes are alive. What a dead one was doing is taken over by the others."""

from sqlalchemy import delete, insert, select, update

from stationmaster.jobs.tables import instances
from stationmaster.kernel.clock import Clock
from stationmaster.kernel.ids import new_id
from stationmaster.storage import Database, Transaction


class Instances:
    """This process's entry in the list of the living, and the view of the others'.

    An instance that has not renewed its lease is taken for dead. If it lives after all, the epochs
    of the streams it wrote to have moved on and its writes are refused.
    """

    def __init__(self, database: Database, clock: Clock, *, lease: float) -> None:
        """`lease` is in seconds; it is renewed at a third of that."""
        self.id = new_id("ins")
        self.lease = lease
        self._database = database
        self._clock = clock

    async def register(self) -> None:
        """Enter the list."""
        now = self._clock.now()
        row = {"id": self.id, "started_at": now, "lease_until": now + round(self.lease * 1000)}
        await self._database.write(lambda tx: tx.execute(insert(instances), row))

    async def renew(self) -> bool:
        """Extend the lease. False if others took this instance for dead: it must stop its runs."""
        until = self._clock.now() + round(self.lease * 1000)
        renewed = await self._database.write(
            lambda tx: (
                tx.execute(
                    update(instances).where(instances.c.id == self.id).values(lease_until=until)
                ).rowcount
            )
        )
        return bool(renewed)

    async def dead(self) -> list[str]:
        """Instances whose lease has run out, this one never among them."""
        now = self._clock.now()
        return await self._database.read(
            lambda tx: list(
                tx.execute(
                    select(instances.c.id).where(
                        instances.c.lease_until < now, instances.c.id != self.id
                    )
                ).scalars()
            )
        )

    async def listed(self) -> list[str]:
        """All that have not been struck off: those that live, and this one in any case."""
        found = await self._database.read(
            lambda tx: list(tx.execute(select(instances.c.id)).scalars())
        )
        return sorted({*found, self.id})

    def is_alive(self, tx: Transaction, instance_id: str) -> bool:
        """Whether an instance holds its lease. This one does for as long as it asks."""
        lease = select(instances.c.id).where(
            instances.c.id == instance_id, instances.c.lease_until >= self._clock.now()
        )
        return instance_id == self.id or tx.execute(lease).first() is not None

    def bury(self, tx: Transaction, instance_id: str) -> bool:
        """Strike an instance off; True for the one caller that did. Renewing then fails."""
        return bool(
            tx.execute(
                delete(instances).where(
                    instances.c.id == instance_id, instances.c.lease_until < self._clock.now()
                )
            ).rowcount
        )

    def leave(self, tx: Transaction) -> None:
        """Strike this instance off at an orderly stop. Idempotent."""
        tx.execute(delete(instances).where(instances.c.id == self.id))
