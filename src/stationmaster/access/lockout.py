"""Lockout: who fails to sign in again and again waits ever longer.

An attempt is counted before it is made and taken back if it succeeds, so that many at once get no
more tries than one after the other. Names that nobody has are counted like any other.
"""

from dataclasses import dataclass

from sqlalchemy import delete, select, update

# Its ON CONFLICT is SQLite's too.
from sqlalchemy.dialects.postgresql import insert as upsert

from stationmaster.access.secret import Hasher
from stationmaster.access.tables import sign_in_failures
from stationmaster.kernel.clock import Clock
from stationmaster.storage import Transaction

MAX_LOCK_S = 900.0
FORGET_S = 3600.0  # without a failure for so long, counting begins anew
FREE_OF_NAME = 5  # failures without a wait
FREE_OF_ADDRESS = 30  # many people may share one


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that was counted. `failures` is the name's count, this one included."""

    name: str
    address: str | None
    failures: int

    @property
    def locks(self) -> bool:
        """Whether the name is locked if this one fails."""
        return self.failures >= FREE_OF_NAME


@dataclass(frozen=True, slots=True)
class Locked:
    """No attempt may be made for `seconds`."""

    seconds: float


class Lockout:
    """Counts failures, each inside its caller's transaction."""

    def __init__(self, hasher: Hasher, clock: Clock) -> None:
        self._hasher = hasher
        self._clock = clock

    def begin(self, tx: Transaction, name: str, address: str | None) -> Attempt | Locked:
        """Count an attempt to sign in as `name`, unless it or the address is locked."""
        by_name = self._hasher.digest(f"sign-in name:{name}")
        by_address = None if address is None else self._hasher.digest(f"sign-in from:{address}")
        free = {by_name: FREE_OF_NAME}
        if by_address is not None:
            free[by_address] = FREE_OF_ADDRESS
        # In one order: two attempts that share both must not wait for each other.
        failures = {subject: self._lock(tx, subject) for subject in sorted(free)}
        now = self._clock.now()
        wait = max(until for _, until in failures.values()) - now
        if wait > 0:
            return Locked(wait / 1000)
        for subject, (before, _) in failures.items():
            count = before + 1
            tx.execute(
                update(sign_in_failures)
                .where(sign_in_failures.c.subject == subject)
                .values(
                    failures=count,
                    failed_at=now,
                    locked_until=now + round(_delay(count - free[subject]) * 1000),
                )
            )
        return Attempt(by_name, by_address, failures[by_name][0] + 1)

    def succeeded(self, tx: Transaction, attempt: Attempt) -> None:
        """It was the right one: forget the name's failures, and take back the address's."""
        tx.execute(delete(sign_in_failures).where(sign_in_failures.c.subject == attempt.name))
        if attempt.address is not None:
            self.withdraw(tx, attempt.address)

    def withdraw(self, tx: Transaction, subject: str) -> None:
        """An attempt that was counted was no failure."""
        tx.execute(
            update(sign_in_failures)
            .where(sign_in_failures.c.subject == subject, sign_in_failures.c.failures > 0)
            .values(failures=sign_in_failures.c.failures - 1, locked_until=0)
        )

    def _lock(self, tx: Transaction, subject: str) -> tuple[int, int]:
        """The subject's failures and until when it is locked, held until the commit."""
        fresh = {"subject": subject, "failures": 0, "failed_at": 0, "locked_until": 0}
        tx.execute(upsert(sign_in_failures).on_conflict_do_nothing(), fresh)
        row = tx.execute(
            select(sign_in_failures).where(sign_in_failures.c.subject == subject).with_for_update()
        ).one()
        if self._clock.now() - row.failed_at > FORGET_S * 1000:
            return 0, 0
        return row.failures, row.locked_until


def _delay(beyond: int) -> float:
    """Seconds to wait: 1, 2, 4, … from the last free failure on."""
    return 0.0 if beyond < 0 else float(min(2.0 ** min(beyond, 20), MAX_LOCK_S))
