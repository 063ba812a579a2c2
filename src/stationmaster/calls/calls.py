"""The verbs on kept calls: choose what is kept, look, delete, sweep.

What is kept of a project is for who may `admin:calls` in it, and for nobody else. To read a call,
to delete one and to change what is kept goes on record.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Row, Select, and_, delete, or_, select

# Its ON CONFLICT is SQLite's too.
from sqlalchemy.dialects.postgresql import insert as upsert

from stationmaster.audit import SILENT, Actor, Recorder
from stationmaster.calls.call import KeptCall, Sought
from stationmaster.calls.policy import Policy, checked
from stationmaster.calls.tables import call_policies, kept_calls
from stationmaster.kernel.clock import Clock, Millis
from stationmaster.kernel.errors import Invalid, NotFound
from stationmaster.kernel.paging import Page
from stationmaster.kernel.principal import Owner, Principal
from stationmaster.storage import Database, Transaction
from stationmaster.storage.resealing import reseal
from stationmaster.storage.sealing import SealBroken, Sealer
from stationmaster.storage.sweeping import sweep

SCOPE = "admin:calls"
POLICY_SCOPE = "admin:organization"
DAY_MS = 86_400_000
MAX_ID = 128

_LISTED = tuple(column for column in kept_calls.c if column.name != "sealed")


class Calls:
    """Kept calls. `enabled` has the policies of the projects whose calls are kept."""

    def __init__(
        self, database: Database, clock: Clock, sealer: Sealer, *, recorder: Recorder = SILENT
    ) -> None:
        self._database = database
        self._clock = clock
        self._sealer = sealer
        self._recorder = recorder
        self.enabled: dict[str, Policy] = {}

    # --- what is kept -----------------------------------------------------------------------------

    async def policy(self, principal: Principal, project_id: str) -> Policy:
        """What a project of the caller's organisation keeps. Whoever asks knows that it is one."""
        principal.require(POLICY_SCOPE)
        of_it = _policy_of(Owner(principal.owner.organization_id, project_id))
        row = await self._database.read(lambda tx: tx.execute(of_it).scalar())
        return Policy() if row is None else Policy.from_row(row)

    async def set_policy(self, principal: Principal, project_id: str, policy: Policy) -> Policy:
        """Choose what is kept of a project of the caller's organisation, from now on.

        Raises `Invalid`. What is kept already stays for as long as the new policy says, also where
        it is switched off. Another server follows within some seconds.
        """
        principal.require(POLICY_SCOPE)
        await asyncio.to_thread(checked, policy)
        organization_id, actor = principal.owner.organization_id, Actor.of(principal)
        values = {
            "organization_id": organization_id,
            "policy": policy.to_row(),
            "changed_at": self._clock.now(),
        }

        def verb(tx: Transaction) -> None:
            tx.execute(
                upsert(call_policies)
                .values(project_id=project_id, **values)
                .on_conflict_do_update(
                    index_elements=["project_id"],
                    set_=values,
                    where=call_policies.c.organization_id == organization_id,
                )
            )
            tx.on_commit(lambda: self._know(project_id, policy))
            details = {"enabled": policy.enabled, "retention_days": policy.retention_days}
            self._recorder.record(tx, actor, "call_policy.set", target=project_id, details=details)

        await self._database.write(verb)
        return policy

    def _know(self, project_id: str, policy: Policy) -> None:
        if policy.enabled:
            self.enabled[project_id] = policy
        else:
            self.enabled.pop(project_id, None)

    async def read_policies(self) -> None:
        """Learn what other servers were told. Raises `Unavailable`."""
        policies = await self._policies()
        self.enabled = {owner.project_id: each for owner, each in policies if each.enabled}

    async def _policies(self) -> Sequence[tuple[Owner, Policy]]:
        rows = await self._database.read(lambda tx: tx.execute(select(call_policies)).all())
        return [
            (Owner(row.organization_id, row.project_id), Policy.from_row(row.policy))
            for row in rows
        ]

    async def insert(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write calls down. Idempotent. Raises `Unavailable`."""
        if rows:
            adding = upsert(kept_calls).on_conflict_do_nothing(index_elements=["id"])
            await self._database.write(lambda tx: tx.execute(adding, list(rows)).close())

    # --- looking ----------------------------------------------------------------------------------

    async def list(
        self, principal: Principal, sought: Sought, *, limit: int, after: str | None
    ) -> Page[KeptCall]:
        """The project's kept calls, newest first, without what was said. `after` is a cursor."""
        principal.require(SCOPE)
        query = _sought(select(*_LISTED), sought)
        if after is not None:
            query = query.where(_before(*_position(after)))
        query = query.order_by(kept_calls.c.created_at.desc(), kept_calls.c.id.desc())

        def verb(tx: Transaction) -> Sequence[Row[Any]]:
            mine = self._mine(tx, principal.owner)
            return tx.execute(query.where(mine).limit(limit + 1)).all()

        rows = await self._database.read(verb)
        items = [_call(row) for row in rows[:limit]]
        more = len(rows) > limit
        return Page(items, f"{items[-1].at}.{items[-1].id}" if more else None)

    async def get(self, principal: Principal, call_id: str) -> KeptCall:
        """A call with what was said. Raises `NotFound`. Who reads one is on record."""
        principal.require(SCOPE)
        actor = Actor.of(principal)

        def verb(tx: Transaction) -> Row[Any]:
            its = self._mine(tx, principal.owner) & (kept_calls.c.id == call_id[:MAX_ID])
            row = tx.execute(select(kept_calls).where(its)).first()
            if row is None:
                raise _missing()
            self._recorder.record(tx, actor, "call.read", target=row.id)
            return row

        row = await self._database.write(verb)
        try:
            plain = await asyncio.to_thread(self._sealer.open, row.sealed, purpose=purpose(row.id))
        except SealBroken:
            raise _missing() from None
        kept = msgspec.json.decode(plain)
        return replace(
            _call(row),
            request=kept.get("request"),
            answer=kept.get("answer"),
            left_out=tuple(kept["left_out"].items()),
        )

    # --- forgetting -------------------------------------------------------------------------------

    async def delete(self, principal: Principal, call_id: str) -> None:
        """Forget what was said in a call. Its line in the ledger stays. Raises `NotFound`."""
        principal.require(SCOPE)
        actor = Actor.of(principal)

        def verb(tx: Transaction) -> None:
            its = self._mine(tx, principal.owner) & (kept_calls.c.id == call_id[:MAX_ID])
            if not tx.execute(delete(kept_calls).where(its)).rowcount:
                raise _missing()
            self._recorder.record(tx, actor, "call.delete", target=call_id[:MAX_ID])

        await self._database.write(verb)

    async def clear(self, principal: Principal) -> int:
        """Forget all that is kept of the project up to now; return how many calls."""
        principal.require(SCOPE)
        actor, now = Actor.of(principal), self._clock.now()
        await self._database.write(
            lambda tx: self._recorder.record(
                tx, actor, "call.clear", target=principal.owner.project_id
            )
        )
        over = _of(principal.owner) & (kept_calls.c.created_at <= now)
        return await sweep(self._database, kept_calls, over)

    async def sweep(self) -> int:
        """Delete those that have had their time; return how many. Idempotent."""
        gone = 0
        for owner, policy in await self._policies():
            over = _of(owner) & (kept_calls.c.created_at <= self._since(policy))
            gone += await sweep(self._database, kept_calls, over)
        return gone

    async def reseal(self) -> int:
        """Seal with the operator's present key what an older one sealed; return how many."""
        return await reseal(self._database, kept_calls, self._sealer)

    def _mine(self, tx: Transaction, owner: Owner) -> ColumnElement[bool]:
        """The project's, as far as they have not had their time."""
        row = tx.execute(_policy_of(owner)).scalar()
        policy = Policy() if row is None else Policy.from_row(row)
        return _of(owner) & (kept_calls.c.created_at > self._since(policy))

    def _since(self, policy: Policy) -> Millis:
        return self._clock.now() - policy.retention_days * DAY_MS


def purpose(call_id: str) -> str:
    """What a call is sealed for."""
    return f"kept_calls:{call_id}"


def _of(owner: Owner) -> ColumnElement[bool]:
    return and_(
        kept_calls.c.project_id == owner.project_id,
        kept_calls.c.organization_id == owner.organization_id,
    )


def _policy_of(owner: Owner) -> Select[Any]:
    return select(call_policies.c.policy).where(
        call_policies.c.project_id == owner.project_id,
        call_policies.c.organization_id == owner.organization_id,
    )


def _sought(query: Select[Any], sought: Sought) -> Select[Any]:
    for name in ("key_id", "user_id", "session_id", "run_id", "model", "outcome"):
        value = getattr(sought, name)
        if value is not None:
            query = query.where(kept_calls.c[name] == value)
    if sought.since is not None:
        query = query.where(kept_calls.c.created_at >= sought.since)
    if sought.until is not None:
        query = query.where(kept_calls.c.created_at < sought.until)
    return query


def _before(at: Millis, call_id: str) -> ColumnElement[bool]:
    return or_(
        kept_calls.c.created_at < at,
        and_(kept_calls.c.created_at == at, kept_calls.c.id < call_id),
    )


def _position(after: str) -> tuple[Millis, str]:
    at, _, call_id = after.partition(".")
    if not (at.isascii() and at.isdigit() and len(at) <= 16 and call_id):
        raise Invalid("after must be `next` of the page before.", param="after")
    return int(at), call_id


def _call(row: Row[Any]) -> KeptCall:
    return KeptCall(
        id=row.id,
        owner=Owner(row.organization_id, row.project_id),
        key_id=row.key_id,
        user_id=row.user_id,
        session_id=row.session_id,
        run_id=row.run_id,
        operation=row.operation,
        provider=row.provider,
        model=row.model,
        outcome=row.outcome,
        at=row.created_at,
    )


def _missing() -> NotFound:
    return NotFound("There is no call with this id that is kept.", code="call_not_found")
