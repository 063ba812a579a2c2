"""The verbs on kept responses: keep, look up, delete, sweep.

A response is kept with the input of its own turn; the turns before it are rows of their own, so a
conversation takes room in proportion to its length. A turn that is gone on from lives as long as
the turns after it. Rows are sealed: they hold what people said to models.

A response is one for who asked for it: a person, a service account, or a key of neither. Nobody
else's request finds it, whatever its id.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from sqlalchemy import delete, select, update

# Its ON CONFLICT is SQLite's too.
from sqlalchemy.dialects.postgresql import insert as upsert

from stationmaster.audit import SILENT, Actor, Recorder
from stationmaster.kernel.clock import Clock
from stationmaster.kernel.errors import Conflict, Invalid, NotFound
from stationmaster.kernel.principal import Principal
from stationmaster.responses.tables import kept_responses
from stationmaster.storage import Database, Transaction
from stationmaster.storage.resealing import reseal
from stationmaster.storage.sealing import SealBroken, Sealer
from stationmaster.storage.sweeping import sweep

MAX_TURNS = 1000
"""Of one conversation: a request with more is too large for any model."""

MAX_ID = 256  # characters of a response's id, which its provider makes

Item = msgspec.Raw
"""One item of an input or output: its bytes, as they came."""


class _Output(msgspec.Struct):
    output: list[Item] = []


class _Kept(msgspec.Struct):
    input: list[Item]
    response: msgspec.Raw


_kept = msgspec.json.Decoder(_Kept)
_output = msgspec.json.Decoder(_Output)


@dataclass(frozen=True, slots=True)
class Conversation:
    """A response in its place. `before` are the items of the turns before it, answers included.

    `input` are those of its own turn, `response` is its JSON.
    """

    before: tuple[Item, ...]
    input: tuple[Item, ...]
    response: bytes
    rows: tuple[str, ...]

    def items(self) -> list[Item]:
        """All that was said up to its end: what a model must be told to go on."""
        return [*self.before, *self.input, *_output.decode(self.response).output]


class Responses:
    """Keeps responses for `lifetime` seconds; with 0 it keeps none."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        sealer: Sealer,
        *,
        lifetime: float,
        recorder: Recorder = SILENT,
    ) -> None:
        self._recorder = recorder
        self._database = database
        self._clock = clock
        self._sealer = sealer
        self._lifetime = round(lifetime * 1000)

    @property
    def keeps(self) -> bool:
        """Whether any are kept."""
        return self._lifetime > 0

    async def keep(
        self,
        principal: Principal,
        response_id: str,
        *,
        items: Sequence[Item],
        response: bytes,
        after: Conversation | None = None,
    ) -> None:
        """Keep a response to `items`, which went on `after` another.

        Idempotent. Raises `Unavailable`, and `Conflict` for an id that an earlier turn has.
        """
        row_id, now = _row_id(principal, response_id), self._clock.now()
        plain = msgspec.json.encode(_Kept(list(items), msgspec.Raw(response)))
        sealed = await asyncio.to_thread(self._sealer.seal, plain, purpose=_purpose(row_id))
        ancestors = [] if after is None else list(after.rows)
        if row_id in ancestors:
            raise Conflict("The provider gave two responses one id.", code="response_id_reused")
        expires_at = now + self._lifetime
        values = {
            "organization_id": principal.owner.organization_id,
            "project_id": principal.owner.project_id,
            "ancestors": ancestors,
            "sealed": sealed,
            "created_at": now,
            "expires_at": expires_at,
        }

        def verb(tx: Transaction) -> None:
            tx.execute(
                upsert(kept_responses)
                .values(id=row_id, **values)
                .on_conflict_do_update(index_elements=["id"], set_=values)
            )
            if ancestors:
                tx.execute(
                    update(kept_responses)
                    .where(kept_responses.c.id.in_(ancestors))
                    .values(expires_at=expires_at)
                )

        await self._database.write(verb)

    async def get(self, principal: Principal, response_id: str) -> Conversation:
        """A response and what was said before it.

        Raises `NotFound` for one that is not kept (any more), is another's, or whose beginning was
        deleted; `Invalid` for a conversation of more than `MAX_TURNS`.
        """
        row_id, now = _row_id(principal, response_id), self._clock.now()

        def verb(tx: Transaction) -> dict[str, tuple[list[str], str]]:
            living = select(kept_responses).where(kept_responses.c.expires_at > now)
            row = tx.execute(living.where(kept_responses.c.id == row_id)).one_or_none()
            if row is None:
                return {}
            found = {row.id: (row.ancestors, row.sealed)}
            if row.ancestors and len(row.ancestors) <= MAX_TURNS:
                earlier = living.where(kept_responses.c.id.in_(row.ancestors))
                found |= {each.id: (each.ancestors, each.sealed) for each in tx.execute(earlier)}
            return found

        found = await self._database.read(verb)
        rows = (*found[row_id][0], row_id) if row_id in found else ()
        if len(rows) > MAX_TURNS:
            raise Invalid(
                f"A conversation has at most {MAX_TURNS} turns.", param="previous_response_id"
            )
        if not rows or any(each not in found for each in rows):
            raise _missing(response_id)
        return await asyncio.to_thread(self._opened, response_id, found, rows)

    def _opened(
        self, response_id: str, found: dict[str, tuple[list[str], str]], rows: tuple[str, ...]
    ) -> Conversation:
        turns: list[_Kept] = []
        for row_id in rows:
            try:
                plain = self._sealer.open(found[row_id][1], purpose=_purpose(row_id))
            except SealBroken:
                raise _missing(response_id) from None
            turns.append(_kept.decode(plain))
        before: list[Item] = []
        for turn in turns[:-1]:
            before += (*turn.input, *_output.decode(turn.response).output)
        last = turns[-1]
        return Conversation(tuple(before), tuple(last.input), bytes(last.response), rows)

    async def delete(self, principal: Principal, response_id: str) -> None:
        """Forget a response. Nobody can go on after it, or after what came of it.

        Raises `NotFound`.
        """
        row_id, now = _row_id(principal, response_id), self._clock.now()
        actor = Actor.of(principal)

        def verb(tx: Transaction) -> None:
            its = (kept_responses.c.id == row_id) & (kept_responses.c.expires_at > now)
            if not tx.execute(delete(kept_responses).where(its)).rowcount:
                raise _missing(response_id)
            self._recorder.record(tx, actor, "response.delete", target=response_id)

        await self._database.write(verb)

    async def sweep(self) -> int:
        """Delete those that have had their time; return how many. Idempotent."""
        over = kept_responses.c.expires_at <= self._clock.now()
        return await sweep(self._database, kept_responses, over)

    async def reseal(self) -> int:
        """Seal with the operator's present key what an older one sealed; return how many."""
        return await reseal(self._database, kept_responses, self._sealer)


def _row_id(principal: Principal, response_id: str) -> str:
    owner = principal.owner
    parts = (owner.organization_id, owner.project_id, principal.actor_id, response_id)
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


def _purpose(row_id: str) -> str:
    return f"kept_responses:{row_id}"


def _missing(response_id: str) -> NotFound:
    return NotFound(
        f"There is no response with the id {response_id[:MAX_ID]!r}, or it is not kept any more.",
        code="response_not_found",
    )
