"""Organisations as clients that have users of their own: a master key, and a key for each user.

A client authenticates its users itself and calls them what it likes. `log_in` gives a user a key
and ends the one from before, so that one key a user is valid at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy import select, update

# Its ON CONFLICT is SQLite's too.
from sqlalchemy.dialects.postgresql import insert as upsert

from stationmaster.access.api_key import ApiKey, add, fresh, from_row, lock
from stationmaster.access.first_keys import DEFAULT_OWNER
from stationmaster.access.organizations import Organization, Organizations
from stationmaster.access.people import Users
from stationmaster.access.resolver import Resolver
from stationmaster.access.roles import ORGANIZATION_SCOPES, PROJECT_SCOPES
from stationmaster.access.scopes import narrow, parse, require_all
from stationmaster.access.secret import KEY_PREFIX, Hasher, generate
from stationmaster.access.tables import (
    api_keys,
    organizations,
    project_members,
    users,
)
from stationmaster.access.text import checked_text
from stationmaster.audit import Actor, Recorder
from stationmaster.kernel.clock import Clock
from stationmaster.kernel.errors import Denied, Invalid, NotFound
from stationmaster.kernel.principal import ALL, Principal
from stationmaster.storage import Database, Transaction

SOURCE = "login"
MAX_NAME = 256
DEFAULT_PERMISSIONS = ("read_messages", "send_messages")


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """A client's user with the key that is valid now. `secret` is shown this once."""

    user_id: str
    external_id: str
    name: str
    key: ApiKey
    secret: str


@dataclass(frozen=True, slots=True)
class Valid:
    """Whose key it is. `external_id` is None for one that is no user's."""

    organization_id: str
    external_id: str | None
    name: str | None
    key: ApiKey


class Clients:
    """The verbs on clients and their users."""

    def __init__(
        self,
        *,
        database: Database,
        hasher: Hasher,
        clock: Clock,
        resolver: Resolver,
        organizations: Organizations,
        people: Users,
        recorder: Recorder,
    ) -> None:
        self._database = database
        self._hasher = hasher
        self._clock = clock
        self._resolver = resolver
        self._organizations = organizations
        self._users = people
        self._recorder = recorder

    async def create(
        self, principal: Principal, *, name: str, description: str | None
    ) -> tuple[Organization, str]:
        """Make a client; its master key is shown this once. See `Organizations.create`."""
        organization, _, secret = await self._organizations.create(
            principal, name=name, description=description
        )
        return organization, secret

    async def close(self, principal: Principal) -> None:
        """End the caller's own organisation: every key of it is refused from now on."""
        principal.require("own:organization")
        mine = principal.owner.organization_id
        if mine == DEFAULT_OWNER.organization_id:
            raise Invalid("The server's own organisation cannot be closed.", code="own_server")
        actor = Actor.of(principal)

        def verb(tx: Transaction) -> None:
            closed = tx.execute(
                update(organizations)
                .where(organizations.c.id == mine, organizations.c.archived_at.is_(None))
                .values(archived_at=self._clock.now())
            )
            if closed.rowcount == 1:
                self._recorder.record(tx, actor, "organization.archive", target=mine)
            tx.on_commit(self._resolver.forget_all)

        await self._database.write(verb)

    async def regenerate_key(self, principal: Principal) -> str:
        """A new master key in place of the one that this is asked with, which ends."""
        principal.require(ALL)
        if principal.kind != "key":
            raise Denied("A master key is replaced by itself alone.")
        actor, secret = Actor.of(principal), generate(KEY_PREFIX)

        def verb(tx: Transaction) -> None:
            row = lock(tx, principal, principal.id)
            if row.source == "environment":
                raise Invalid(
                    "This key is in the operator's settings; change it there.",
                    code="key_of_settings",
                )
            self._end(tx, [row.id])
            old = from_row(row)
            key = fresh(
                old.name,
                old.owner,
                old.scopes,
                secret,
                source="created",
                created_at=self._clock.now(),
                expires_at=old.expires_at,
                bounds=old.bounds,
                user_id=old.user_id,
                service_account_id=old.service_account_id,
                created_by=principal.id,
                rotates_at=old.rotates_at,
            )
            add(tx, key, secret, self._hasher)
            details = {"replaces": old.id}
            self._recorder.record(tx, actor, "key.regenerate", target=key.id, details=details)

        await self._database.write(verb)
        return secret

    # --- users ------------------------------------------------------------------------------

    async def log_in(
        self,
        principal: Principal,
        external_id: str,
        *,
        name: str | None,
        permissions: Sequence[str] = DEFAULT_PERMISSIONS,
    ) -> LoggedIn:
        """Give a user a key with `permissions`; the one from before ends. Makes unknown users.

        Raises `Invalid`, `Denied`, and `NotFound` for a user who was disabled.
        """
        principal.require("admin:members")
        principal.require("admin:keys")
        scopes = parse(permissions, param="permissions")
        require_all(principal, scopes)
        checked_text(external_id, "user_id", 255)
        shown = checked_text(name if name is not None else external_id, "display_name", MAX_NAME)
        actor, secret = Actor.of(principal), generate(KEY_PREFIX)

        def verb(tx: Transaction) -> LoggedIn:
            user_id = self._user(tx, principal, external_id, shown)
            self._admit(tx, principal, user_id, scopes)
            self._end(tx, _keys_of(tx, user_id))
            key = fresh(
                "login",
                principal.owner,
                scopes,
                secret,
                source=SOURCE,
                created_at=self._clock.now(),
                expires_at=None,
                user_id=user_id,
                created_by=principal.id,
            )
            add(tx, key, secret, self._hasher)
            details = {"key": key.id, "hint": key.hint, "permissions": sorted(scopes)}
            self._recorder.record(tx, actor, "user.log_in", target=user_id, details=details)
            return LoggedIn(user_id, external_id, shown, key, secret)

        return await self._database.write(verb)

    def _user(self, tx: Transaction, principal: Principal, external_id: str, name: str) -> str:
        mine = principal.owner.organization_id
        row = tx.execute(
            select(users.c.id, users.c.name, users.c.status)
            .where(
                users.c.organization_id == mine,
                users.c.external_id == external_id,
                users.c.removed_at.is_(None),
            )
            .with_for_update()
        ).first()
        if row is None:
            made = self._users.add(tx, mine, external_id=external_id, name=name, role="member")
            return made.id
        if row.status != "active":
            raise NotFound("There is no such user.")
        if row.name != name:
            tx.execute(update(users).where(users.c.id == row.id).values(name=name))
        return str(row.id)

    def _admit(
        self, tx: Transaction, principal: Principal, user_id: str, scopes: frozenset[str]
    ) -> None:
        """Give the user the least role in the project that the scopes fit into."""
        role = "member"
        if narrow(scopes, ORGANIZATION_SCOPES[role]) != scopes:
            role = "admin"
        if narrow(scopes, PROJECT_SCOPES[role]) != scopes:
            raise Invalid("A user cannot have these permissions.", param="permissions")
        member = {
            "project_id": principal.owner.project_id,
            "member_id": user_id,
            "organization_id": principal.owner.organization_id,
            "role": role,
            "created_at": self._clock.now(),
            "created_by": principal.id,
        }
        put = upsert(project_members).values(**member)
        same = ["project_id", "member_id"]
        tx.execute(put.on_conflict_do_update(index_elements=same, set_={"role": role}))

    async def log_out(self, principal: Principal, external_id: str | None) -> None:
        """End a user's key: one's own, or with a master key anybody's. Idempotent.

        Raises `NotFound` for a user who is not there.
        """
        if external_id is not None:
            principal.require("admin:members")
        actor = Actor.of(principal)

        def verb(tx: Transaction) -> None:
            if external_id is None:
                user_id = principal.user_id
            else:
                user_id = tx.execute(
                    select(users.c.id).where(
                        users.c.organization_id == principal.owner.organization_id,
                        users.c.external_id == external_id,
                        users.c.removed_at.is_(None),
                    )
                ).scalar()
            if user_id is None:
                raise NotFound("There is no such user.")
            if ended := _keys_of(tx, user_id):
                self._end(tx, ended)
                self._recorder.record(tx, actor, "user.log_out", target=user_id)

        await self._database.write(verb)

    async def validate(self, principal: Principal) -> Valid:
        """Whose key this is. Raises `Invalid` for what is not a key."""
        if principal.kind != "key":
            raise Invalid("This is not an API key.", code="not_a_key")

        def query(tx: Transaction) -> Valid:
            row = tx.execute(
                select(api_keys, users.c.external_id, users.c.name.label("user_name"))
                .outerjoin(users, users.c.id == api_keys.c.user_id)
                .where(api_keys.c.id == principal.id)
            ).one()
            return Valid(row.organization_id, row.external_id, row.user_name, from_row(row))

        return await self._database.read(query)

    def _end(self, tx: Transaction, key_ids: Sequence[str]) -> None:
        if key_ids:
            tx.execute(
                update(api_keys)
                .where(api_keys.c.id.in_(key_ids), api_keys.c.revoked_at.is_(None))
                .values(revoked_at=self._clock.now())
            )
        for key_id in key_ids:
            tx.on_commit(partial(self._resolver.forget_key, key_id))


def _keys_of(tx: Transaction, user_id: str) -> list[str]:
    return list(
        tx.execute(
            select(api_keys.c.id).where(
                api_keys.c.user_id == user_id,
                api_keys.c.source == SOURCE,
                api_keys.c.revoked_at.is_(None),
            )
        ).scalars()
    )
