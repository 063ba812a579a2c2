"""Organisations: each is a tenant. What belongs to one does not exist for another."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, insert, select, update

from stationmaster.access import rates
from stationmaster.access.api_key import ApiKey, add, fresh
from stationmaster.access.first_keys import DEFAULT_OWNER
from stationmaster.access.resolver import Resolver
from stationmaster.access.secret import KEY_PREFIX, Hasher, generate
from stationmaster.access.tables import organizations, projects
from stationmaster.access.text import checked_text
from stationmaster.audit import SILENT, Actor, Recorder
from stationmaster.kernel.clock import Clock, Millis
from stationmaster.kernel.errors import Denied
from stationmaster.kernel.ids import new_id
from stationmaster.kernel.principal import ALL, Limits, Owner, Principal
from stationmaster.storage import Database, Transaction

SCOPE = "admin:organization"
MAX_NAME = 256
MAX_DESCRIPTION = 4096


@dataclass(frozen=True, slots=True)
class Organization:
    """A tenant."""

    id: str
    name: str
    description: str | None
    limits: Limits | None
    created_at: Millis


class Organizations:
    """The verbs on organisations."""

    def __init__(
        self,
        *,
        database: Database,
        hasher: Hasher,
        clock: Clock,
        resolver: Resolver,
        recorder: Recorder = SILENT,
    ) -> None:
        self._database = database
        self._hasher = hasher
        self._clock = clock
        self._resolver = resolver
        self._recorder = recorder

    async def mine(self, principal: Principal) -> Organization:
        """The caller's own. Every credential may ask."""
        return await self._database.read(lambda tx: _get(tx, principal))

    async def create(
        self, principal: Principal, *, name: str, description: str | None = None
    ) -> tuple[Organization, ApiKey, str]:
        """Make a tenant with its default project and a master key, shown this once.

        Only who has every right in the server's own organisation may. Raises `Invalid`, `Denied`.
        """
        if principal.owner.organization_id != DEFAULT_OWNER.organization_id:
            raise Denied("Only the server's own organisation makes others.")
        principal.require(ALL)
        checked_text(name, "name", MAX_NAME)
        if description is not None:
            checked_text(description, "description", MAX_DESCRIPTION, empty=True)
        actor, secret = Actor.of(principal), generate(KEY_PREFIX)

        def verb(tx: Transaction) -> tuple[Organization, ApiKey]:
            made = self.make(tx, name, description, secret)
            details = {"name": name}
            self._recorder.record(
                tx, actor, "organization.create", target=made[0].id, details=details
            )
            return made

        organization, key = await self._database.write(verb)
        return organization, key, secret

    def make(
        self, tx: Transaction, name: str, description: str | None, secret: str
    ) -> tuple[Organization, ApiKey]:
        """Make a tenant whose master key has `secret`, for a verb that has checked who asks."""
        now, owner = self._clock.now(), Owner(new_id("org"), new_id("proj"))
        organization = Organization(owner.organization_id, name, description, None, now)
        tx.execute(
            insert(organizations),
            {
                "id": organization.id,
                "name": name,
                "description": description,
                "created_at": now,
            },
        )
        tx.execute(
            insert(projects),
            {
                "id": owner.project_id,
                "organization_id": organization.id,
                "name": "default",
                "created_at": now,
                "is_default": True,
            },
        )
        key = fresh(
            "master",
            owner,
            frozenset({ALL}),
            secret,
            source="created",
            created_at=now,
            expires_at=None,
        )
        add(tx, key, secret, self._hasher)
        return organization, key

    async def update(
        self,
        principal: Principal,
        *,
        name: str | None = None,
        description: str | None = None,
        limits: Mapping[str, Any] | None = None,
    ) -> Organization:
        """Change the caller's own; what is None stays. `limits` replaces all of them."""
        principal.require(SCOPE)
        values: dict[str, Any] = {}
        if name is not None:
            values["name"] = checked_text(name, "name", MAX_NAME)
        if description is not None:
            values["description"] = checked_text(
                description, "description", MAX_DESCRIPTION, empty=True
            )
        if limits is not None:
            values["limits"] = rates.to_row(rates.check_limits(limits, param="limits"))
        actor = Actor.of(principal)

        def verb(tx: Transaction) -> Organization:
            if values:
                here = organizations.c.id == principal.owner.organization_id
                tx.execute(update(organizations).where(here).values(**values))
                tx.on_commit(self._resolver.forget_all)
                details = {"changed": sorted(values)}
                self._recorder.record(tx, actor, "organization.update", details=details)
            return _get(tx, principal)

        return await self._database.write(verb)


def _get(tx: Transaction, principal: Principal) -> Organization:
    return _organization(
        tx.execute(
            select(organizations).where(organizations.c.id == principal.owner.organization_id)
        ).one()
    )


def _organization(row: Row[Any]) -> Organization:
    return Organization(
        row.id, row.name, row.description, rates.from_row(row.limits), row.created_at
    )
