"""Invites into an organisation.

    pending ──accept──▶ accepted
       │└────21 days──▶ expired
       └────delete────▶ deleted

What an invited person shows is a token: the invite's id and a keyed hash of it. It is not kept, so
that whoever reads the database cannot make one, and it dies with the invite.
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, insert, or_, select, update

from stationmaster.access.paging import Slice, Window, window
from stationmaster.access.people import User, Users, lock_people
from stationmaster.access.roles import ROLES, check_role, require_rank
from stationmaster.access.secret import Hasher
from stationmaster.access.tables import invites, users
from stationmaster.access.text import checked_email
from stationmaster.audit import SILENT, Actor, Recorder
from stationmaster.kernel.clock import Clock, Millis
from stationmaster.kernel.errors import Conflict, Invalid, NotFound, Unauthenticated
from stationmaster.kernel.ids import check_id, new_id
from stationmaster.kernel.principal import Owner, Principal
from stationmaster.storage import Database, Transaction

SCOPE = "admin:members"
LASTS_MS = 21 * 86_400_000
STATUSES = ("pending", "accepted", "expired")
_PURPOSE = "invite:"


@dataclass(frozen=True, slots=True)
class Invite:
    """A person who may come in."""

    id: str
    organization_id: str
    email: str
    role: str
    invited_at: Millis
    expires_at: Millis
    accepted_at: Millis | None
    deleted_at: Millis | None

    def status(self, now: Millis) -> str:
        """As the Admin API has it."""
        if self.deleted_at is not None:
            return "deleted"
        if self.accepted_at is not None:
            return "accepted"
        return "expired" if self.expires_at <= now else "pending"


class Invites:
    """The verbs on invites. All but `accept` need `admin:members`."""

    def __init__(
        self,
        database: Database,
        hasher: Hasher,
        clock: Clock,
        users: Users,
        *,
        recorder: Recorder = SILENT,
    ) -> None:
        self._database = database
        self._hasher = hasher
        self._clock = clock
        self._users = users
        self._recorder = recorder

    async def create(self, principal: Principal, *, email: str, role: str) -> Invite:
        """Invite a person. Raises `Invalid`, `Denied`, `Conflict` for a user or a second invite."""
        principal.require(SCOPE)
        check_role(role, ROLES, param="role")
        require_rank(principal, role)
        address, actor = checked_email(email), Actor.of(principal)
        organization_id, now = principal.owner.organization_id, self._clock.now()
        invite = Invite(
            new_id("invite"), organization_id, address, role, now, now + LASTS_MS, None, None
        )

        def verb(tx: Transaction) -> Invite:
            lock_people(tx, organization_id)
            self._check_new(tx, organization_id, address)
            tx.execute(
                insert(invites),
                {
                    "id": invite.id,
                    "organization_id": organization_id,
                    "email": address,
                    "role": role,
                    "invited_at": now,
                    "expires_at": invite.expires_at,
                    "invited_by": principal.actor_id,
                },
            )
            details = {"role": role}
            self._recorder.record(tx, actor, "invite.create", target=invite.id, details=details)
            return invite

        return await self._database.write(verb)

    def _check_new(self, tx: Transaction, organization_id: str, email: str) -> None:
        present = select(users.c.id).where(
            users.c.organization_id == organization_id,
            users.c.email == email,
            users.c.removed_at.is_(None),
        )
        pending = select(invites.c.id).where(
            invites.c.organization_id == organization_id,
            invites.c.email == email,
            *_of_status("pending", self._clock.now()),
        )
        if tx.execute(present).first() is not None:
            raise Conflict("This person is in the organisation.", code="user_exists")
        if tx.execute(pending).first() is not None:
            raise Conflict("This person is invited already.", code="invite_exists")

    async def get(self, principal: Principal, invite_id: str) -> Invite:
        """One invite. Raises `NotFound`, also for another organisation's."""
        principal.require(SCOPE)
        return await self._database.read(lambda tx: _find(tx, principal, invite_id))

    async def list(
        self,
        principal: Principal,
        part: Window,
        *,
        email: str | None = None,
        roles: Sequence[str] | None = None,
        statuses: Sequence[str] | None = None,
    ) -> Slice[Invite]:
        """The organisation's invites, newest first, without deleted ones."""
        principal.require(SCOPE)
        query = select(invites).where(
            invites.c.organization_id == principal.owner.organization_id,
            invites.c.deleted_at.is_(None),
        )
        if email is not None:
            query = query.where(invites.c.email == email.lower())
        if roles is not None:
            query = query.where(invites.c.role.in_(roles))
        if statuses is not None:
            now = self._clock.now()
            query = query.where(or_(*(_both(_of_status(status, now)) for status in statuses)))
        found = await self._database.browse(
            lambda tx: window(tx, query, invites.c.id, part, prefix="invite")
        )
        return Slice([_invite(row) for row in found.items], found.has_more)

    async def delete(self, principal: Principal, invite_id: str) -> None:
        """Take an invite back. Raises `NotFound`, and `Conflict` for one that was accepted."""
        principal.require(SCOPE)
        actor = Actor.of(principal)

        def verb(tx: Transaction) -> None:
            found = _find(tx, principal, invite_id)
            if found.accepted_at is not None:
                raise Conflict("The invite was accepted.", code="invite_accepted")
            tx.execute(
                update(invites)
                .where(invites.c.id == invite_id)
                .values(deleted_at=self._clock.now())
            )
            self._recorder.record(tx, actor, "invite.delete", target=invite_id)

        await self._database.write(verb)

    async def token(self, principal: Principal, invite_id: str) -> str:
        """What the invited person is to show. Raises `NotFound`, `Conflict` if it is over."""
        found = await self.get(principal, invite_id)
        require_rank(principal, found.role)
        if found.status(self._clock.now()) != "pending":
            raise Conflict("The invite is over.", code="invite_over")
        return self._token(invite_id)

    async def accept(self, token: str, *, name: str) -> User:
        """Come in, once. Raises `Unauthenticated` for a token that is not, or no longer, valid."""
        return await self._database.write(lambda tx: self.accept_in(tx, token, name=name))

    def accept_in(self, tx: Transaction, token: str, *, name: str) -> User:
        """`accept` inside a transaction that does more with the new user."""
        invite_id = token.partition(".")[0]
        if not token.isascii() or not hmac.compare_digest(token, self._token(invite_id)):
            raise _wrong()
        row = tx.execute(select(invites).where(invites.c.id == invite_id).with_for_update()).first()
        if row is None or _invite(row).status(self._clock.now()) != "pending":
            raise _wrong()
        user = self._users.add(tx, row.organization_id, email=row.email, name=name, role=row.role)
        tx.execute(
            update(invites).where(invites.c.id == invite_id).values(accepted_at=self._clock.now())
        )
        actor = Actor.named("user", user.id, Owner(row.organization_id, ""))
        self._recorder.record(tx, actor, "invite.accept", target=invite_id)
        return user

    def _token(self, invite_id: str) -> str:
        return f"{invite_id}.{self._hasher.digest(_PURPOSE + invite_id)}"


def _wrong() -> Unauthenticated:
    return Unauthenticated("The invite is not valid, or no longer.", code="invalid_invite")


def _find(tx: Transaction, principal: Principal, invite_id: str) -> Invite:
    check_id(invite_id, "invite")
    row = tx.execute(
        select(invites).where(
            invites.c.id == invite_id,
            invites.c.organization_id == principal.owner.organization_id,
            invites.c.deleted_at.is_(None),
        )
    ).first()
    if row is None:
        raise NotFound("There is no invite with this id.")
    return _invite(row)


def _of_status(status: str, now: Millis) -> tuple[Any, ...]:
    if status == "accepted":
        return (invites.c.accepted_at.is_not(None),)
    open_still = (invites.c.accepted_at.is_(None), invites.c.deleted_at.is_(None))
    if status == "expired":
        return *open_still, invites.c.expires_at <= now
    if status == "pending":
        return *open_still, invites.c.expires_at > now
    raise Invalid(f"statuses must be of {', '.join(STATUSES)}.", param="statuses")


def _both(conditions: tuple[Any, ...]) -> Any:
    first, *rest = conditions
    for condition in rest:
        first &= condition
    return first


def _invite(row: Row[Any]) -> Invite:
    return Invite(
        row.id,
        row.organization_id,
        row.email,
        row.role,
        row.invited_at,
        row.expires_at,
        row.accepted_at,
        row.deleted_at,
    )
