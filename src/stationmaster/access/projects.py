"""Projects: the parts of an organisation. Anthropic's Admin API calls them workspaces."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, insert, select, update

from stationmaster.access import rates
from stationmaster.access.organizations import MAX_NAME, SCOPE
from stationmaster.access.paging import Slice, Window, window
from stationmaster.access.resolver import Resolver
from stationmaster.access.tables import projects
from stationmaster.access.text import checked_text
from stationmaster.audit import SILENT, Actor, Recorder
from stationmaster.kernel.clock import Clock, Millis
from stationmaster.kernel.errors import Conflict, Invalid, NotFound
from stationmaster.kernel.ids import new_id
from stationmaster.kernel.principal import Limits, Principal
from stationmaster.storage import Database, Transaction

COLOR = re.compile(r"#[0-9A-Fa-f]{6}")
DEFAULT_COLOR = "#6C5BB9"
MAX_TAGS = 50
MAX_TAG_KEY = 64
MAX_TAG_VALUE = 256
RESERVED_TAG = "anthropic"
MAX_IDS = 100


@dataclass(frozen=True, slots=True)
class Project:
    """A part of an organisation."""

    id: str
    organization_id: str
    name: str
    color: str
    tags: Mapping[str, str]
    limits: Limits | None
    is_default: bool
    created_at: Millis
    archived_at: Millis | None


@dataclass(frozen=True, slots=True)
class ProjectChange:
    """What is to be different; None leaves a part as it is. A tag that is None goes away."""

    name: str | None = None
    color: str | None = None
    tags: Mapping[str, str | None] | None = None
    limits: Mapping[str, Any] | None = None


class Projects:
    """The verbs on projects. All need `admin:organization`."""

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

    async def create(self, principal: Principal, change: ProjectChange) -> Project:
        """Make a project. Raises `Invalid` without a name."""
        principal.require(SCOPE)
        if change.name is None:
            raise Invalid("name is required.", param="name")
        values = _values(change)
        values["tags"] = _merged({}, change.tags)
        project_id, actor = new_id("proj"), Actor.of(principal)

        def verb(tx: Transaction) -> Project:
            tx.execute(
                insert(projects),
                {
                    "id": project_id,
                    "organization_id": principal.owner.organization_id,
                    "created_at": self._clock.now(),
                    "is_default": False,
                    **values,
                },
            )
            details = {"name": change.name}
            self._recorder.record(tx, actor, "project.create", target=project_id, details=details)
            return find(tx, principal, project_id)

        return await self._database.write(verb)

    async def get(self, principal: Principal, project_id: str) -> Project:
        """One project. Raises `NotFound`, also for another organisation's."""
        principal.require(SCOPE)
        return await self._database.read(lambda tx: find(tx, principal, project_id))

    async def list(
        self,
        principal: Principal,
        part: Window,
        *,
        archived: bool = False,
        default: bool = False,
        ids: Sequence[str] | None = None,
    ) -> Slice[Project]:
        """The organisation's projects, newest first; archived and default ones where asked for."""
        principal.require(SCOPE)
        query = select(projects).where(
            projects.c.organization_id == principal.owner.organization_id
        )
        if not archived:
            query = query.where(projects.c.archived_at.is_(None))
        if not default:
            query = query.where(projects.c.is_default.is_(False))
        if ids is not None:
            if len(ids) > MAX_IDS:
                raise Invalid(f"ids has more than {MAX_IDS} entries.", param="ids")
            query = query.where(projects.c.id.in_(ids))
        found = await self._database.browse(
            lambda tx: window(tx, query, projects.c.id, part, prefix="proj")
        )
        return Slice([_project(row) for row in found.items], found.has_more)

    async def update(self, principal: Principal, project_id: str, change: ProjectChange) -> Project:
        """Change a project. Raises `Invalid`, `NotFound`, `Conflict` for an archived one."""
        principal.require(SCOPE)
        values, actor = _values(change), Actor.of(principal)

        def verb(tx: Transaction) -> Project:
            old = find(tx, principal, project_id, lock=True)
            if old.archived_at is not None:
                raise Conflict("The project is archived.", code="project_archived")
            new = dict(values)
            if change.tags is not None:
                new["tags"] = _merged(old.tags, change.tags)
            if new:
                tx.execute(update(projects).where(projects.c.id == old.id).values(**new))
                if "limits" in new:
                    tx.on_commit(self._resolver.forget_all)
                details = {"changed": sorted(new)}
                self._recorder.record(tx, actor, "project.update", target=old.id, details=details)
            return find(tx, principal, project_id)

        return await self._database.write(verb)

    async def archive(self, principal: Principal, project_id: str) -> Project:
        """End a project: its keys are refused from now on, and what it holds stays. Idempotent.

        Raises `NotFound`, and `Invalid` for the default project and for the caller's own.
        """
        principal.require(SCOPE)
        actor = Actor.of(principal)

        def verb(tx: Transaction) -> Project:
            old = find(tx, principal, project_id, lock=True)
            if old.is_default:
                raise Invalid("The default project cannot be archived.", code="default_project")
            if old.id == principal.owner.project_id:
                raise Invalid("A key cannot archive its own project.", code="own_project")
            if old.archived_at is None:
                tx.execute(
                    update(projects)
                    .where(projects.c.id == old.id)
                    .values(archived_at=self._clock.now())
                )
                tx.on_commit(self._resolver.forget_all)
                self._recorder.record(tx, actor, "project.archive", target=old.id)
            return find(tx, principal, project_id)

        return await self._database.write(verb)


def find(tx: Transaction, principal: Principal, project_id: str, *, lock: bool = False) -> Project:
    """A project of the caller's organisation. Raises `NotFound`."""
    query = select(projects).where(
        projects.c.id == project_id,
        projects.c.organization_id == principal.owner.organization_id,
    )
    row = tx.execute(query.with_for_update() if lock else query).first()
    if row is None:
        raise NotFound("There is no project with this id.")
    return _project(row)


def _project(row: Row[Any]) -> Project:
    return Project(
        id=row.id,
        organization_id=row.organization_id,
        name=row.name,
        color=row.color or DEFAULT_COLOR,
        tags=row.tags or {},
        limits=rates.from_row(row.limits),
        is_default=row.is_default,
        created_at=row.created_at,
        archived_at=row.archived_at,
    )


def _values(change: ProjectChange) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if change.name is not None:
        values["name"] = checked_text(change.name, "name", MAX_NAME)
    if change.color is not None:
        if COLOR.fullmatch(change.color) is None:
            raise Invalid("display_color must be a colour such as #6C5BB9.", param="display_color")
        values["color"] = change.color
    if change.limits is not None:
        values["limits"] = rates.to_row(rates.check_limits(change.limits, param="limits"))
    return values


def _merged(old: Mapping[str, str], new: Mapping[str, str | None] | None) -> dict[str, str]:
    tags = dict(old)
    for key, value in (new or {}).items():
        checked_text(key, "tags", MAX_TAG_KEY)
        if key.lower().startswith(RESERVED_TAG):
            raise Invalid(f"A tag may not begin with {RESERVED_TAG!r}.", param="tags")
        if value is None:
            tags.pop(key, None)
        else:
            tags[key] = checked_text(value, "tags", MAX_TAG_VALUE, empty=True)
    if len(tags) > MAX_TAGS:
        raise Invalid(f"A project has {MAX_TAGS} tags at most.", param="tags")
    return tags
