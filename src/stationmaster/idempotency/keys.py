"""The verbs on keys: begin, finish, give up, sweep."""

import asyncio
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Row, delete, insert, select, update

# Its ON CONFLICT is SQLite's too.
from sqlalchemy.dialects.postgresql import insert as upsert

from stationmaster.idempotency.attempt import Attempt, KeyInUse, KeyReused, Reply
from stationmaster.idempotency.tables import idempotency_keys
from stationmaster.jobs import Instances
from stationmaster.kernel.clock import Clock
from stationmaster.kernel.errors import Conflict, Invalid, Unavailable
from stationmaster.kernel.ids import new_id
from stationmaster.kernel.principal import Principal
from stationmaster.storage import Database, Transaction
from stationmaster.storage.sealing import SealBroken, Sealer
from stationmaster.storage.sweeping import sweep

MAX_LENGTH = 255
LIFE_MS = 24 * 3600 * 1000
MAX_REPLY_BYTES = 1024 * 1024
AGAIN_S = 1.0  # until what the database did not take is told to it again

_PRINTABLE = re.compile(rf"[\x20-\x7e]{{1,{MAX_LENGTH}}}")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a key is one: nobody else's key, and no key on another path, is the same."""

    organization_id: str
    key_id: str
    path: str
    key: str

    @classmethod
    def of(cls, principal: Principal, path: str, key: str) -> "Place":
        """Of a caller's request. Raises `Invalid` for a key that cannot be one."""
        if _PRINTABLE.fullmatch(key) is None:
            raise Invalid(
                f"Idempotency-Key must be 1 to {MAX_LENGTH} printable ASCII characters.",
                code="invalid_idempotency_key",
                param="Idempotency-Key",
            )
        return cls(principal.owner.organization_id, principal.key_id, path, key)

    @property
    def id(self) -> str:
        """What stands for it in the table."""
        parts = (self.organization_id, self.key_id, self.path, self.key)
        return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


class _Kept(msgspec.Struct):
    headers: tuple[tuple[str, str], ...]
    body: bytes | None


_kept = msgspec.json.Decoder(_Kept)


class IdempotencyKeys:
    """Lets a request run once under its key, and keeps what it was answered for a day.

    Replies are sealed: one may hold a secret that is shown once.
    """

    def __init__(
        self, database: Database, clock: Clock, sealer: Sealer, instances: Instances
    ) -> None:
        self._database = database
        self._clock = clock
        self._sealer = sealer
        self._instances = instances
        self._owed: set[asyncio.Task[None]] = set()

    async def begin(self, place: Place, fingerprint: str) -> Attempt | Reply:
        """The right to run the request, or what it was answered when it ran.

        Raises `KeyReused` where the key stands for another request, `KeyInUse` while the first
        still runs, `Conflict` where it was done and nobody knows how it ended
        (`idempotency_outcome_unknown`) or its reply was too large to keep
        (`idempotency_reply_not_kept`).
        """
        attempt = Attempt(place.id, new_id("try"))
        try:
            earlier = await self._database.write(
                lambda tx: self._enter(tx, place, fingerprint, attempt)
            )
        except Unavailable as error:
            if error.error_code == "commit_unknown":  # the key may be taken: nobody would free it
                self._owe(lambda tx: _give_up(tx, attempt))
            raise
        return attempt if earlier is None else self._reply(*earlier, fingerprint)

    def _enter(
        self, tx: Transaction, place: Place, fingerprint: str, attempt: Attempt
    ) -> tuple[Row[Any], bool] | None:
        """Take the key for `attempt`; or the row of who has it, and whether he is at it."""
        now = self._clock.now()
        fresh = {
            "organization_id": place.organization_id,
            "fingerprint": fingerprint,
            "state": "running",
            "attempt": attempt.id,
            "instance_id": self._instances.id,
            "status": None,
            "reply": None,
            "created_at": now,
            "expires_at": now + LIFE_MS,
        }
        added = tx.execute(
            upsert(idempotency_keys).on_conflict_do_nothing(), {"id": attempt.row_id, **fresh}
        )
        if added.rowcount == 1:
            return None
        mine = idempotency_keys.c.id == attempt.row_id
        row = tx.execute(select(idempotency_keys).where(mine).with_for_update()).first()
        if row is None:  # given up between the two statements
            tx.execute(insert(idempotency_keys), {"id": attempt.row_id, **fresh})
            return None
        alive = row.instance_id is not None and self._instances.is_alive(tx, row.instance_id)
        if row.expires_at > now and (row.state != "running" or alive):
            return row, alive
        # Its day is over, or its server died before anything of it was committed.
        tx.execute(update(idempotency_keys).where(mine).values(**fresh))
        return None

    def _reply(self, row: Row[Any], alive: bool, fingerprint: str) -> Reply:
        if row.fingerprint != fingerprint:
            raise KeyReused(
                "This Idempotency-Key was used here for another request.",
                param="Idempotency-Key",
            )
        if row.state == "done":
            return self._opened(row)
        if alive:
            raise KeyInUse("The first request with this Idempotency-Key is still under way.")
        raise _unknown()

    def _opened(self, row: Row[Any]) -> Reply:
        try:
            kept = _kept.decode(self._sealer.open(row.reply, purpose=_purpose(row.id)))
        except SealBroken:  # the operator's key has changed since
            raise _unknown() from None
        if kept.body is None:
            raise Conflict(
                "The request with this Idempotency-Key was done, but its reply was too large to"
                " be kept.",
                code="idempotency_reply_not_kept",
            )
        return Reply(row.status, kept.headers, kept.body)

    async def finish(self, attempt: Attempt, reply: Reply) -> None:
        """Keep the reply: from now on it is what the key answers.

        This and the other two ends raise `Unavailable` where the database does not take it. It is
        told again until it does: the key would be in use for as long as this server lives.
        """
        attempt.end()
        kept = msgspec.json.encode(_Kept(reply.headers, reply.body))
        sealed = self._sealer.seal(kept, purpose=_purpose(attempt.row_id))
        done = {"state": "done", "status": reply.status, "reply": sealed, "instance_id": None}
        await self._settle(
            lambda tx: tx.execute(update(idempotency_keys).where(*_of(attempt)).values(**done))
        )

    async def fail(self, attempt: Attempt) -> None:
        """The request came to no good end: where nothing of it was committed, the key is free."""
        attempt.end()
        await self._settle(lambda tx: _give_up(tx, attempt))

    async def release(self, attempt: Attempt) -> None:
        """The request was refused: the key is free, whatever was written down about that."""
        attempt.end()
        await self._settle(lambda tx: tx.execute(delete(idempotency_keys).where(*_of(attempt))))

    async def _settle(self, verb: Callable[[Transaction], object]) -> None:
        try:
            await self._database.write(verb)
        except Unavailable:
            self._owe(verb)
            raise

    def _owe(self, verb: Callable[[Transaction], object]) -> None:
        """Tell the database later. Where this server stops before, others see that by its lease."""
        task = asyncio.create_task(self._pay(verb), name="idempotency-owed")
        self._owed.add(task)
        task.add_done_callback(self._owed.discard)

    async def _pay(self, verb: Callable[[Transaction], object]) -> None:
        while True:
            await asyncio.sleep(AGAIN_S)
            try:
                await self._database.write(verb)
            except Unavailable:
                continue
            return

    async def sweep(self) -> int:
        """Delete the keys that have had their day; return how many. Idempotent."""
        over = idempotency_keys.c.expires_at <= self._clock.now()
        return await sweep(self._database, idempotency_keys, over)


def _give_up(tx: Transaction, attempt: Attempt) -> None:
    untouched = tx.execute(
        delete(idempotency_keys).where(*_of(attempt), idempotency_keys.c.state == "running")
    )
    if not untouched.rowcount:
        tx.execute(update(idempotency_keys).where(*_of(attempt)).values(instance_id=None))


def _of(attempt: Attempt) -> tuple[Any, Any]:
    return (idempotency_keys.c.id == attempt.row_id, idempotency_keys.c.attempt == attempt.id)


def _purpose(row_id: str) -> str:
    return f"idempotency_keys:{row_id}"


def _unknown() -> Conflict:
    return Conflict(
        "The request with this Idempotency-Key was begun, something of it was done, and nobody"
        " knows how it ended. Look what there is, then use another key.",
        code="idempotency_outcome_unknown",
    )
