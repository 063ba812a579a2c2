"""Keys that follow keys: by a caller's wish, or by themselves when they are old enough.

    key ──rotate──▶ key, which expires when the overlap is over
                    └─ successor, with the same rights

Rotated by a caller, the successor's secret is in the reply. Rotated by its age, nobody is there to
be given one: the successor waits without a usable secret, the book tells of it, and the first to
`collect` it, the old key itself or who manages keys, is given it. No secret is ever kept.
"""

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any

import structlog
from sqlalchemy import Row, or_, select, update

from stationmaster.access.api_key import ApiKey, add, from_row, hint_of, lock
from stationmaster.access.keys import DAY_MS, SCOPE, Keys
from stationmaster.access.resolver import Resolver
from stationmaster.access.scopes import require_all
from stationmaster.access.secret import KEY_PREFIX, Hasher, generate
from stationmaster.access.tables import api_keys
from stationmaster.audit import SILENT, Actor, Recorder
from stationmaster.events import EventLog, NewEvent
from stationmaster.kernel.clock import Clock, Millis, iso
from stationmaster.kernel.errors import Conflict, Invalid, Unavailable
from stationmaster.kernel.ids import check_id, new_id
from stationmaster.kernel.principal import Owner, Principal
from stationmaster.storage import Database, Transaction

log = structlog.get_logger(__name__)

ROTATED = "key.rotated"
OVERLAP_DAYS = 7  # how long the old key goes on when it was rotated by its age
MAX_OVERLAP_S = 90 * 86_400.0
SWEEP_S = 600.0
BATCH = 100


class Rotation:
    """The verbs on successors of keys."""

    def __init__(
        self,
        *,
        database: Database,
        keys: Keys,
        hasher: Hasher,
        clock: Clock,
        resolver: Resolver,
        events: EventLog,
        recorder: Recorder = SILENT,
        overlap_days: int = OVERLAP_DAYS,
    ) -> None:
        """`overlap_days` is for keys that are rotated by their age."""
        self._database = database
        self._keys = keys
        self._hasher = hasher
        self._clock = clock
        self._resolver = resolver
        self._events = events
        self._recorder = recorder
        self._overlap_days = overlap_days

    async def rotate(
        self, principal: Principal, key_id: str, *, overlap: float
    ) -> tuple[ApiKey, str]:
        """Make a key's successor; its secret is in the reply and never again.

        The old key goes on for `overlap` seconds, and none of its runs is cut before. Needs
        `admin:keys` and every scope of the key: the secret gives its rights. Raises `Invalid` for
        a key of the settings or one that is over, `Conflict` for one that has a successor.
        """
        principal.require(SCOPE)
        if not 0 <= overlap <= MAX_OVERLAP_S:
            raise Invalid(
                f"overlap must be between 0 and {MAX_OVERLAP_S:.0f} seconds.", param="overlap"
            )
        actor, secret = Actor.of(principal), generate(KEY_PREFIX)

        def verb(tx: Transaction) -> ApiKey:
            row = lock(tx, principal, key_id)
            require_all(principal, row.scopes)
            now = self._clock.now()
            _check_rotatable(row, now)
            successor = self._succeed(tx, row, secret, now, now + round(overlap * 1000))
            self._recorder.record(
                tx, actor, "key.rotate", target=key_id, details={"successor": successor.id}
            )
            return successor

        return await self._database.write(verb), secret

    async def collect(self, principal: Principal, key_id: str) -> tuple[ApiKey, str]:
        """Give out the secret of a key that was made by rotation: once.

        To the key that it succeeds, or to who has `admin:keys` and every scope of it. Raises
        `Conflict` where somebody has it already, `NotFound` also for keys of others.
        """
        check_id(key_id, "key")
        actor, secret = Actor.of(principal), generate(KEY_PREFIX)
        own = principal.kind == "key"

        def verb(tx: Transaction) -> ApiKey:
            query = select(api_keys).where(
                api_keys.c.id == principal.key_id, api_keys.c.successor_id == key_id
            )
            if not own or tx.execute(query).first() is None:
                principal.require(SCOPE)
                require_all(principal, lock(tx, principal, key_id).scopes)
            taken = tx.execute(
                update(api_keys)
                .where(api_keys.c.id == key_id, api_keys.c.uncollected.is_(True))
                .values(hash=self._hasher.digest(secret), hint=hint_of(secret), uncollected=False)
            )
            if taken.rowcount != 1:
                raise Conflict("The secret of this key was given out.", code="key_collected")
            self._recorder.record(tx, actor, "key.collect", target=key_id)
            return from_row(tx.execute(select(api_keys).where(api_keys.c.id == key_id)).one())

        return await self._database.write(verb), secret

    # --- by age -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Rotate what is old enough, for ever."""
        while True:
            try:
                while await self.sweep() == BATCH:
                    pass
            except Unavailable:
                log.warning("Keys cannot be looked through for old ones; trying again.")
            await asyncio.sleep(SWEEP_S)

    async def sweep(self) -> int:
        """Rotate keys that are due, and return how many. Safe for several servers at once."""
        now = self._clock.now()
        due = (
            select(api_keys.c.id)
            .where(
                api_keys.c.rotates_at <= now,
                api_keys.c.successor_id.is_(None),
                api_keys.c.revoked_at.is_(None),
                or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > now),
            )
            .order_by(api_keys.c.rotates_at)
            .limit(BATCH)
        )
        ids = await self._database.read(lambda tx: list(tx.execute(due).scalars()))
        for key_id in ids:
            await self._database.write(partial(self._rotate_old, key_id=key_id))
        return len(ids)

    def _rotate_old(self, tx: Transaction, *, key_id: str) -> None:
        row = tx.execute(select(api_keys).where(api_keys.c.id == key_id).with_for_update()).first()
        now = self._clock.now()
        if row is None or row.successor_id is not None or row.revoked_at is not None:
            return  # another server, or somebody, was first
        # The secret is thrown away here: `collect` makes another.
        old_until = now + self._overlap_days * DAY_MS
        successor = self._succeed(tx, row, generate(KEY_PREFIX), now, old_until, uncollected=True)
        owner = Owner(row.organization_id, row.project_id)
        stream = stream_of(row.project_id)
        self._events.ensure(tx, stream, "keys", owner)
        self._events.append(tx, stream, [NewEvent(ROTATED, _news(row, successor, old_until))])
        actor = Actor.named("server", "", owner)
        self._recorder.record(
            tx, actor, "key.rotate", target=key_id, details={"successor": successor.id}
        )
        tx.on_commit(
            lambda: log.warning(
                "A key is old and has a successor to be collected.",
                key=key_id,
                successor=successor.id,
                old_key_ends=iso(old_until),
            )
        )

    def _succeed(
        self,
        tx: Transaction,
        row: Row[Any],
        secret: str,
        now: Millis,
        old_until: Millis,
        *,
        uncollected: bool = False,
    ) -> ApiKey:
        old = from_row(row)
        successor = replace(
            old,
            id=new_id("key"),
            hint="" if uncollected else hint_of(secret),
            created_at=now,
            disabled_at=None,
            last_used_at=None,
            rotates_at=self._keys.rotation_due(now) if old.rotates_at is not None else None,
            uncollected=uncollected,
        )
        add(tx, successor, secret, self._hasher)
        ends = old_until if old.expires_at is None else min(old.expires_at, old_until)
        tx.execute(
            update(api_keys)
            .where(api_keys.c.id == old.id)
            .values(successor_id=successor.id, expires_at=ends, rotates_at=None)
        )
        tx.on_commit(lambda: self._resolver.forget_key(old.id))
        return successor


def stream_of(project_id: str) -> str:
    """The stream of what happens to a project's keys by itself."""
    return f"keys:{project_id}"


def _check_rotatable(row: Row[Any], now: Millis) -> None:
    if row.source == "environment":
        raise Invalid(
            "This key stands in the server's settings: change it there.", code="configured_key"
        )
    if row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= now):
        raise Invalid("The key is over: make a new one.", code="key_over")
    if row.successor_id is not None:
        raise Conflict(
            "The key has a successor already.", code="key_rotated", successor=row.successor_id
        )
    if row.uncollected:
        raise Conflict("The key is new: collect its secret.", code="key_uncollected")


def _news(row: Row[Any], successor: ApiKey, old_until: Millis) -> dict[str, Any]:
    ends = old_until if row.expires_at is None else min(row.expires_at, old_until)
    return {
        "key_id": row.id,
        "name": row.name,
        "hint": row.hint,
        "user_id": row.user_id,
        "service_account_id": row.service_account_id,
        "successor_id": successor.id,
        "old_key_expires_at": iso(ends),
    }
