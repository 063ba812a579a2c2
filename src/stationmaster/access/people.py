"""Users of an organisation: who they are and which role they have.

How they sign in is kept elsewhere, by their id.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, delete, func, insert, select, update

from stationmaster.access.paging import Slice, Window, window
from stationmaster.access.resolver import Resolver
from stationmaster.access.roles import ROLES, check_role, require_rank
from stationmaster.access.tables import organizations, project_members, users
from stationmaster.access.text import checked_email, checked_text
from stationmaster.audit import SILENT, Actor, Recorder
from stationmaster.kernel.clock import Clock, Millis
from stationmaster.kernel.errors import Conflict, Invalid, NotFound
from stationmaster.kernel.ids import new_id
from stationmaster.kernel.principal import Principal
from stationmaster.storage import Database, Transaction

SCOPE = "admin:members"
MAX_NAME = 256
MAX_EXTERNAL_ID = 255


@dataclass(frozen=True, slots=True)
class User:
    """A person. `external_id` is what a client of ours calls its own user."""

    id: str
    organization_id: str
    email: str | None
    external_id: str | None
    name: str
    role: str
    status: str
    created_at: Millis


class Users:
    """The verbs on users. All need `admin:members`."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        resolver: Resolver,
        *,
        recorder: Recorder = SILENT,
    ) -> None:
        self._database = database
        self._clock = clock
        self._resolver = resolver
        self._recorder = recorder

    async def create(
        self, principal: Principal, *, email: str, name: str, role: str = "member"
    ) -> User:
        """Add a person without an invite. Raises `Invalid`, `Denied`, `Conflict`."""
        principal.require(SCOPE)
        check_role(role, ROLES, param="role")
        require_rank(principal, role)
        actor = Actor.of(principal)

        def verb(tx: Transaction) -> User:
            user = self.add(tx, principal.owner.organization_id, email=email, name=name, role=role)
            details = {"role": role}
            self._recorder.record(tx, actor, "user.create", target=user.id, details=details)
            return user

        return await self._database.write(verb)

    def add(
        self,
        tx: Transaction,
        organization_id: str,
        *,
        name: str,
        role: str,
        email: str | None = None,
        external_id: str | None = None,
    ) -> User:
        """Add a person, for a verb that has checked who asks. Raises `Invalid`, `Conflict`.

        One of `email` and `external_id` is there.
        """
        user = User(
            id=new_id("user"),
            organization_id=organization_id,
            email=None if email is None else checked_email(email),
            external_id=external_id
            if external_id is None
            else checked_text(external_id, "user_id", MAX_EXTERNAL_ID),
            name=checked_text(name, "name", MAX_NAME, empty=True),
            role=check_role(role, ROLES, param="role"),
            status="active",
            created_at=self._clock.now(),
        )
        lock_people(tx, organization_id)
        same = users.c.email == user.email if email else users.c.external_id == user.external_id
        if tx.execute(select(users.c.id).where(same, *_of(organization_id))).first() is not None:
            raise Conflict("There is such a user already.", code="user_exists")
        tx.execute(
            insert(users),
            {
                "id": user.id,
                "organization_id": organization_id,
                "email": user.email,
                "external_id": user.external_id,
                "name": user.name,
                "role": user.role,
                "status": user.status,
                "created_at": user.created_at,
            },
        )
        return user

    async def get(self, principal: Principal, user_id: str) -> User:
        """One user. Raises `NotFound`, also for another organisation's."""
        principal.require(SCOPE)
        return await self._database.read(lambda tx: find_user(tx, principal, user_id))

    async def named(self, principal: Principal, user_ids: Collection[str]) -> Mapping[str, User]:
        """Those of the users who are in the organisation now, by id. Oneself, anybody may see."""
        if set(user_ids) != {principal.user_id}:
            principal.require(SCOPE)
        query = select(users).where(users.c.id.in_(user_ids), *_of(principal.owner.organization_id))
        rows = await self._database.read(lambda tx: tx.execute(query).all())
        return {row.id: user_of(row) for row in rows}

    async def list(
        self,
        principal: Principal,
        part: Window,
        *,
        email: str | None = None,
        roles: Sequence[str] | None = None,
    ) -> Slice[User]:
        """The organisation's users, newest first."""
        principal.require(SCOPE)
        query = select(users).where(*_of(principal.owner.organization_id))
        if email is not None:
            query = query.where(users.c.email == email.lower())
        if roles is not None:
            query = query.where(users.c.role.in_(roles))
        found = await self._database.browse(
            lambda tx: window(tx, query, users.c.id, part, prefix="user")
        )
        return Slice([user_of(row) for row in found.items], found.has_more)

    async def update(
        self,
        principal: Principal,
        user_id: str,
        *,
        role: str | None = None,
        status: str | None = None,
        name: str | None = None,
    ) -> User:
        """Change a user; what the person's keys may do changes here at once.

        Raises `Invalid`, `NotFound`, `Denied` where it takes an owner, and `Conflict` where nobody
        would own the organisation.
        """
        principal.require(SCOPE)
        values: dict[str, Any] = {}
        if role is not None:
            values["role"] = check_role(role, ROLES, param="role")
        if status is not None:
            values["status"] = check_role(status, ("active", "disabled"), param="status")
        if name is not None:
            values["name"] = checked_text(name, "name", MAX_NAME, empty=True)
        actor = Actor.of(principal)

        def verb(tx: Transaction) -> User:
            lock_people(tx, principal.owner.organization_id)
            old = find_user(tx, principal, user_id)
            require_rank(principal, old.role, role or old.role)
            if values.get("role", "owner") != "owner" or status == "disabled":
                _keep_an_owner(tx, old)
            if values:
                tx.execute(update(users).where(users.c.id == user_id).values(**values))
                tx.on_commit(self._resolver.forget_all)
                self._recorder.record(tx, actor, "user.update", target=user_id, details=values)
            return find_user(tx, principal, user_id)

        return await self._database.write(verb)

    async def remove(self, principal: Principal, user_id: str) -> None:
        """Take a person out of the organisation: the keys are refused from now on.

        Raises `NotFound`, `Denied`, `Conflict` as `update`, and `Invalid` for oneself.
        """
        principal.require(SCOPE)
        if user_id == principal.user_id:
            raise Invalid("Nobody removes himself.", code="own_user")
        actor = Actor.of(principal)

        def verb(tx: Transaction) -> None:
            lock_people(tx, principal.owner.organization_id)
            old = find_user(tx, principal, user_id)
            require_rank(principal, old.role)
            _keep_an_owner(tx, old)
            tx.execute(
                update(users)
                .where(users.c.id == user_id)
                .values(removed_at=self._clock.now(), status="disabled")
            )
            tx.execute(delete(project_members).where(project_members.c.member_id == user_id))
            tx.on_commit(self._resolver.forget_all)
            self._recorder.record(tx, actor, "user.remove", target=user_id)

        await self._database.write(verb)


def find_user(tx: Transaction, principal: Principal, user_id: str) -> User:
    """A user of the caller's organisation. Raises `NotFound`."""
    row = tx.execute(
        select(users).where(users.c.id == user_id, *_of(principal.owner.organization_id))
    ).first()
    if row is None:
        raise NotFound("There is no user with this id.")
    return user_of(row)


def lock_people(tx: Transaction, organization_id: str) -> None:
    """Let nobody else change who is in the organisation until the end of `tx`."""
    tx.execute(
        select(organizations.c.id)
        .where(organizations.c.id == organization_id)
        .with_for_update(key_share=True)
    )


def _of(organization_id: str) -> tuple[Any, ...]:
    return users.c.organization_id == organization_id, users.c.removed_at.is_(None)


def _keep_an_owner(tx: Transaction, leaving: User) -> None:
    """Raise `Conflict` where `leaving` is the last owner among the users."""
    if leaving.role != "owner" or leaving.status != "active":
        return
    owners = tx.execute(
        select(func.count()).where(
            users.c.role == "owner",
            users.c.status == "active",
            *_of(leaving.organization_id),
        )
    ).scalar_one()
    if owners == 1:
        raise Conflict("The organisation would have no owner.", code="last_owner")


def user_of(row: Row[Any]) -> User:
    """The user that a row holds."""
    return User(
        id=row.id,
        organization_id=row.organization_id,
        email=row.email,
        external_id=row.external_id,
        name=row.name,
        role=row.role,
        status=row.status,
        created_at=row.created_at,
    )
