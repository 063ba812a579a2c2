"""One try at a request that has a key, and what the tries of others mean for it.

    (none) ──▶ running ──▶ begun ──▶ done ──▶ (deleted after a day)
       ▲          │          │
       └──────────┘          └──▶ stays: what was done is unknown, and is not done again
    refused, failed,    the server died, or failed
    or its server died

`begun` is written by the first transaction of the request that commits, in that transaction.
"""

from dataclasses import dataclass

from sqlalchemy import update

from stationmaster.idempotency.tables import idempotency_keys
from stationmaster.kernel.errors import Conflict, Invalid, Unavailable
from stationmaster.storage import Transaction


class KeyReused(Invalid):
    """The Idempotency-Key was used for another request."""

    code = "idempotency_key_reused"


class KeyInUse(Conflict):
    """The first request with this Idempotency-Key is still under way."""

    code = "idempotency_key_in_use"

    retry_after = 2.0
    """Seconds. Unlike other conflicts this one passes."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, whole. `body` is None where it was too large to be kept."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes | None


class Attempt:
    """A request that runs now under its key. For one event loop."""

    def __init__(self, row_id: str, attempt_id: str) -> None:
        self.row_id = row_id
        self.id = attempt_id
        self.begun = False
        self._over = False

    def mark(self, tx: Transaction) -> None:
        """Write down that something of the request is done, with the transaction that does it.

        Raises `Unavailable`, so that nothing is done, where this server was taken for dead and
        the request runs elsewhere.
        """
        if self.begun or self._over:
            return
        marked = tx.execute(
            update(idempotency_keys)
            .where(
                idempotency_keys.c.id == self.row_id,
                idempotency_keys.c.attempt == self.id,
                idempotency_keys.c.state.in_(("running", "begun")),
            )
            .values(state="begun")
        )
        if not marked.rowcount:
            raise Unavailable("The request with this Idempotency-Key was taken over elsewhere.")
        tx.on_commit(self._noted)

    def end(self) -> None:
        """Mark no more: tasks that the request has left behind go on."""
        self._over = True

    def _noted(self) -> None:
        self.begun = True
