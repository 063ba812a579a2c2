"""Service accounts: names for programs, to which keys belong."""

import re
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, delete, insert, select, update

from stationmaster.access.paging import Slice, Window, window
from stationmaster.access.resolver import Resolver
from stationmaster.access.roles import ACCOUNT_ROLES, check_role
from stationmaster.access.tables import project_members, service_accounts
from stationmaster.access.text import checked_text
from stationmaster.audit import SILENT, Actor, Recorder
from stationmaster.kernel.clock import Clock, Millis
from stationmaster.kernel.errors import Conflict, Invalid, NotFound
from stationmaster.kernel.ids import new_id
from stationmaster.kernel.principal import Principal
from stationmaster.storage import Database, Transaction

SCOPE = "admin:organization"
NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
MAX_DESCRIPTION = 4096


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """A program's identity. Its keys never have more rights than its role."""

    id: str
    organization_id: str
    name: str
    description: str
    role: str
    created_at: Millis
    created_by: str | None
    updated_at: Millis
    updated_by: str | None
    archived_at: Millis | None
    archived_by: str | None


class ServiceAccounts:
    """The verbs on service accounts. All need `admin:organization`."""

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
        self, principal: Principal, *, name: str, description: str = "", role: str = "member"
    ) -> ServiceAccount:
        """Make one. Raises `Invalid`, and `Conflict` for a name that was ever taken."""
        principal.require(SCOPE)
        if NAME.fullmatch(name) is None:
            raise Invalid(
                "name must be 1 to 63 lower-case letters, digits and hyphens.", param="name"
            )
        checked_text(description, "description", MAX_DESCRIPTION, empty=True)
        check_role(role, ACCOUNT_ROLES, param="organization_role")
        account_id, actor, now = new_id("svac"), Actor.of(principal), self._clock.now()

        def verb(tx: Transaction) -> ServiceAccount:
            taken = select(service_accounts.c.id).where(
                service_accounts.c.organization_id == principal.owner.organization_id,
                service_accounts.c.name == name,
            )
            if tx.execute(taken).first() is not None:
                raise Conflict("There is a service account of this name.", code="name_taken")
            tx.execute(
                insert(service_accounts),
                {
                    "id": account_id,
                    "organization_id": principal.owner.organization_id,
                    "name": name,
                    "description": description,
                    "role": role,
                    "created_at": now,
                    "created_by": principal.actor_id,
                    "updated_at": now,
                    "updated_by": principal.actor_id,
                },
            )
            details = {"name": name, "role": role}
            self._recorder.record(
                tx, actor, "service_account.create", target=account_id, details=details
            )
            return find_account(tx, principal, account_id)

        return await self._database.write(verb)

    async def get(self, principal: Principal, account_id: str) -> ServiceAccount:
        """One account. Raises `NotFound`, also for another organisation's."""
        principal.require(SCOPE)
        return await self._database.read(lambda tx: find_account(tx, principal, account_id))

    async def list(
        self, principal: Principal, part: Window, *, archived: bool = False
    ) -> Slice[ServiceAccount]:
        """The organisation's service accounts, newest first."""
        principal.require(SCOPE)
        query = select(service_accounts).where(
            service_accounts.c.organization_id == principal.owner.organization_id
        )
        if not archived:
            query = query.where(service_accounts.c.archived_at.is_(None))
        found = await self._database.browse(
            lambda tx: window(tx, query, service_accounts.c.id, part, prefix="svac")
        )
        return Slice([_account(row) for row in found.items], found.has_more)

    async def update(
        self,
        principal: Principal,
        account_id: str,
        *,
        description: str | None = None,
        role: str | None = None,
    ) -> ServiceAccount:
        """Change an account. Raises `Invalid`, `NotFound`, `Conflict` for an archived one."""
        values: dict[str, Any] = {}
        if description is not None:
            values["description"] = checked_text(
                description, "description", MAX_DESCRIPTION, empty=True
            )
        if role is not None:
            values["role"] = check_role(role, ACCOUNT_ROLES, param="organization_role")
        return await self._change(principal, account_id, "service_account.update", values)

    async def archive(self, principal: Principal, account_id: str) -> ServiceAccount:
        """End an account: its keys are refused from now on. Idempotent."""
        principal.require(SCOPE)
        if account_id == principal.service_account_id:
            raise Invalid("An account cannot archive itself.", code="own_account")
        values = {"archived_at": self._clock.now(), "archived_by": principal.actor_id}
        return await self._change(principal, account_id, "service_account.archive", values)

    async def _change(
        self, principal: Principal, account_id: str, action: str, values: dict[str, Any]
    ) -> ServiceAccount:
        principal.require(SCOPE)
        actor, now = Actor.of(principal), self._clock.now()
        archiving = "archived_at" in values

        def verb(tx: Transaction) -> ServiceAccount:
            old = find_account(tx, principal, account_id, lock=True)
            if old.archived_at is not None:
                if archiving:
                    return old
                raise Conflict("The service account is archived.", code="account_archived")
            if values:
                tx.execute(
                    update(service_accounts)
                    .where(service_accounts.c.id == account_id)
                    .values(updated_at=now, updated_by=principal.actor_id, **values)
                )
                if archiving:
                    tx.execute(
                        delete(project_members).where(project_members.c.member_id == account_id)
                    )
                tx.on_commit(self._resolver.forget_all)
                details = {"changed": sorted(values)}
                self._recorder.record(tx, actor, action, target=account_id, details=details)
            return find_account(tx, principal, account_id)

        return await self._database.write(verb)


def find_account(
    tx: Transaction,
    principal: Principal,
    account_id: str,
    *,
    alive: bool = False,
    lock: bool = False,
) -> ServiceAccount:
    """An account of the caller's organisation; `alive` is one that is not archived.

    Raises `NotFound`.
    """
    query = select(service_accounts).where(
        service_accounts.c.id == account_id,
        service_accounts.c.organization_id == principal.owner.organization_id,
    )
    row = tx.execute(query.with_for_update() if lock else query).first()
    if row is None or (alive and row.archived_at is not None):
        raise NotFound("There is no service account with this id.")
    return _account(row)


def _account(row: Row[Any]) -> ServiceAccount:
    return ServiceAccount(
        id=row.id,
        organization_id=row.organization_id,
        name=row.name,
        description=row.description,
        role=row.role,
        created_at=row.created_at,
        created_by=row.created_by,
        updated_at=row.updated_at,
        updated_by=row.updated_by,
        archived_at=row.archived_at,
        archived_by=row.archived_by,
    )
