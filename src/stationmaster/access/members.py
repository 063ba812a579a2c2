"""Members of a project: users, and service accounts, with the role that they have in it."""

from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Row, Select, delete, insert, select, update

from stationmaster.access.paging import Slice, Window, window
from stationmaster.access.people import find_user
from stationmaster.access.projects import find as find_project
from stationmaster.access.resolver import Resolver
from stationmaster.access.roles import PROJECT_ROLES, check_role
from stationmaster.access.service_accounts import find_account
from stationmaster.access.tables import project_members
from stationmaster.audit import SILENT, Actor, Recorder
from stationmaster.kernel.clock import Clock, Millis
from stationmaster.kernel.errors import Conflict, NotFound
from stationmaster.kernel.principal import Principal
from stationmaster.storage import Database, Transaction

SCOPE = "admin:members"
PREFIXES = {"user": "user", "service_account": "svac"}
Kind = Literal["user", "service_account"]


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody in a project."""

    project_id: str
    member_id: str
    role: str
    created_at: Millis
    created_by: str | None


class Members:
    """The verbs on members of projects. All need `admin:members`."""

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

    async def add(
        self, principal: Principal, kind: Kind, project_id: str, member_id: str, role: str
    ) -> Member:
        """Bring somebody in. Raises `Invalid`, `NotFound`, `Conflict` for one who is in already."""
        principal.require(SCOPE)
        check_role(role, PROJECT_ROLES, param="workspace_role")
        actor = Actor.of(principal)

        def verb(tx: Transaction) -> Member:
            project = find_project(tx, principal, project_id, lock=True)
            if project.archived_at is not None:
                raise Conflict("The project is archived.", code="project_archived")
            _find_somebody(tx, principal, kind, member_id)
            if tx.execute(_one(principal, kind, project_id, member_id)).first() is not None:
                raise Conflict("This is a member of the project.", code="member_exists")
            tx.execute(
                insert(project_members),
                {
                    "project_id": project_id,
                    "member_id": member_id,
                    "organization_id": principal.owner.organization_id,
                    "role": role,
                    "created_at": self._clock.now(),
                    "created_by": principal.actor_id,
                },
            )
            self._changed(tx, actor, "member.add", (project_id, member_id), role)
            return _find(tx, principal, kind, project_id, member_id)

        return await self._database.write(verb)

    async def get(
        self, principal: Principal, kind: Kind, project_id: str, member_id: str
    ) -> Member:
        """One member. Raises `NotFound`."""
        principal.require(SCOPE)
        return await self._database.read(
            lambda tx: _find(tx, principal, kind, project_id, member_id)
        )

    async def list(
        self, principal: Principal, kind: Kind, project_id: str, part: Window
    ) -> Slice[Member]:
        """The members of a project of one kind, newest users first."""
        principal.require(SCOPE)

        def query(tx: Transaction) -> Slice[Row[Any]]:
            find_project(tx, principal, project_id)
            return _window(tx, _all(principal, kind, project_id), kind, part)

        found = await self._database.browse(query)
        return Slice([_member(row) for row in found.items], found.has_more)

    async def of_account(
        self, principal: Principal, account_id: str, *, limit: int, after: str | None
    ) -> Slice[Member]:
        """The projects that a service account is in, newest project first."""
        principal.require(SCOPE)
        wanted = select(project_members).where(project_members.c.member_id == account_id)

        def query(tx: Transaction) -> Slice[Row[Any]]:
            find_account(tx, principal, account_id)
            column, part = project_members.c.project_id, Window(limit, after)
            return window(tx, wanted, column, part, prefix="proj")

        found = await self._database.browse(query)
        return Slice([_member(row) for row in found.items], found.has_more)

    async def update(
        self, principal: Principal, kind: Kind, project_id: str, member_id: str, role: str
    ) -> Member:
        """Give a member another role. Raises `Invalid`, `NotFound`."""
        principal.require(SCOPE)
        check_role(role, PROJECT_ROLES, param="workspace_role")
        actor = Actor.of(principal)

        def verb(tx: Transaction) -> Member:
            find_project(tx, principal, project_id, lock=True)
            _find(tx, principal, kind, project_id, member_id)
            tx.execute(update(project_members).where(*_is(project_id, member_id)).values(role=role))
            self._changed(tx, actor, "member.update", (project_id, member_id), role)
            return _find(tx, principal, kind, project_id, member_id)

        return await self._database.write(verb)

    async def remove(
        self, principal: Principal, kind: Kind, project_id: str, member_id: str
    ) -> None:
        """Take a member out. Raises `NotFound`."""
        principal.require(SCOPE)
        actor = Actor.of(principal)

        def verb(tx: Transaction) -> None:
            _find(tx, principal, kind, project_id, member_id)
            tx.execute(delete(project_members).where(*_is(project_id, member_id)))
            self._changed(tx, actor, "member.remove", (project_id, member_id), None)

        await self._database.write(verb)

    def _changed(
        self,
        tx: Transaction,
        actor: Actor,
        action: str,
        member: tuple[str, str],
        role: str | None,
    ) -> None:
        project_id, member_id = member
        tx.on_commit(self._resolver.forget_all)
        details = {"project": project_id, "role": role}
        self._recorder.record(tx, actor, action, target=member_id, details=details)


def _find_somebody(tx: Transaction, principal: Principal, kind: Kind, member_id: str) -> None:
    if kind == "user":
        find_user(tx, principal, member_id)
    else:
        find_account(tx, principal, member_id, alive=True)


def _find(
    tx: Transaction, principal: Principal, kind: Kind, project_id: str, member_id: str
) -> Member:
    row = tx.execute(_one(principal, kind, project_id, member_id)).first()
    if row is None:
        raise NotFound("There is no such member of a project.")
    return _member(row)


def _one(principal: Principal, kind: Kind, project_id: str, member_id: str) -> Select[Any]:
    return _all(principal, kind, project_id).where(project_members.c.member_id == member_id)


def _all(principal: Principal, kind: Kind, project_id: str) -> Select[Any]:
    return select(project_members).where(
        project_members.c.organization_id == principal.owner.organization_id,
        project_members.c.project_id == project_id,
        project_members.c.member_id.startswith(PREFIXES[kind] + "_", autoescape=True),
    )


def _is(project_id: str, member_id: str) -> tuple[Any, ...]:
    return project_members.c.project_id == project_id, project_members.c.member_id == member_id


def _window(tx: Transaction, query: Select[Any], kind: Kind, part: Window) -> Slice[Row[Any]]:
    return window(tx, query, project_members.c.member_id, part, prefix=PREFIXES[kind])


def _member(row: Row[Any]) -> Member:
    return Member(row.project_id, row.member_id, row.role, row.created_at, row.created_by)
