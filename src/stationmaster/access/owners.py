"""Whose a project, a key or a user is: for capabilities that keep something about them."""

from sqlalchemy import select

from stationmaster.access.tables import api_keys, projects, users
from stationmaster.kernel.errors import NotFound
from stationmaster.kernel.principal import Owner, Principal
from stationmaster.storage import Database


class Owners:
    """Finds owners within the caller's organisation. Each raises `NotFound`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of_project(self, principal: Principal, project_id: str) -> Owner:
        """A project's."""
        query = select(projects.c.organization_id, projects.c.id).where(
            projects.c.id == project_id,
            projects.c.organization_id == principal.owner.organization_id,
        )
        row = await self._database.read(lambda tx: tx.execute(query).first())
        if row is None:
            raise NotFound("There is no project with this id.")
        return Owner(row.organization_id, row.id)

    async def of_key(self, principal: Principal, key_id: str) -> Owner:
        """A key's."""
        query = select(api_keys.c.organization_id, api_keys.c.project_id).where(
            api_keys.c.id == key_id,
            api_keys.c.organization_id == principal.owner.organization_id,
        )
        row = await self._database.read(lambda tx: tx.execute(query).first())
        if row is None:
            raise NotFound("There is no key with this id.")
        return Owner(row.organization_id, row.project_id)

    async def of_user(self, principal: Principal, user_id: str) -> Owner:
        """A user's, who is of an organisation and of no project: the caller's stands for it."""
        query = select(users.c.organization_id).where(
            users.c.id == user_id,
            users.c.organization_id == principal.owner.organization_id,
        )
        row = await self._database.read(lambda tx: tx.execute(query).first())
        if row is None:
            raise NotFound("There is no user with this id.")
        return principal.owner
