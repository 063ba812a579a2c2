"""API keys, and how fast an organisation and its projects may go."""

from typing import Annotated, Literal

from fastapi import FastAPI, Path, Query

from stationmaster.access import ApiKey, rates
from stationmaster.access.keys import KeyChange, Sought
from stationmaster.access.projects import Project, ProjectChange
from stationmaster.http.cursors import bad_cursor
from stationmaster.http.deps import Caller, Given
from stationmaster.http.routes.managed.organization.words import (
    PAGE_SIZE,
    SHOWN_RATES,
    AfterId,
    BeforeId,
    PageLimit,
    actor,
    moment,
    page,
    rate_of,
    window,
)
from stationmaster.http.routes.managed.query import PageCursor
from stationmaster.http.routes.managed.table import add
from stationmaster.http.services import Services
from stationmaster.http.shapes.organization import (
    Actor,
    KeyOfAdminApi,
    KeyPage,
    KeyUpdateOfAdminApi,
    OrganizationRateLimit,
    OrganizationRateLimitPage,
    RateValue,
    WorkspaceRateLimit,
    WorkspaceRateLimitPage,
    WorkspaceRateLimitUpdate,
    WorkspaceRateValue,
)
from stationmaster.kernel.clock import Millis, iso
from stationmaster.kernel.errors import NotFound
from stationmaster.kernel.principal import Limits, Principal

KeyId = Annotated[str, Path(description="The key's id, `key_…`.")]
WorkspaceId = Annotated[str, Path(description="The project's id, `proj_…`.")]
RateLimitId = Annotated[str, Path(description="The limits' id, `rlmt_…`.")]
Status = Literal["active", "inactive", "archived", "expired"]
GroupType = Literal["batch", "files", "model_group", "skills", "token_count", "web_search"]
ListLimit = Annotated[int | None, Query(ge=1, le=1000)]


async def list_organization_keys(
    services: Given,
    caller: Caller,
    *,
    limit: PageLimit = PAGE_SIZE,
    after_id: AfterId = None,
    before_id: BeforeId = None,
    status: Annotated[Status | None, Query()] = None,
    workspace_id: Annotated[str | None, Query(max_length=64)] = None,
    created_by_user_id: Annotated[str | None, Query(max_length=64)] = None,
) -> KeyPage:
    """The organisation's keys, or your project's where you see no more, newest first."""
    sought = Sought(workspace_id or None, status, created_by_user_id or None)
    found = await services.keys.search(caller, sought, window(limit, after_id, before_id))
    now = services.clock.now()
    return KeyPage(**page(found, [_key(key, now) for key in found.items]))


async def get_organization_key(api_key_id: KeyId, services: Given, caller: Caller) -> KeyOfAdminApi:
    """A key, without its secret."""
    return _key(await services.keys.get(caller, api_key_id), services.clock.now())


async def update_organization_key(
    api_key_id: KeyId, body: KeyUpdateOfAdminApi, services: Given, caller: Caller
) -> KeyOfAdminApi:
    """Rename a key, take it out of service and back in, or end it for good by `archived`."""
    now = services.clock.now()
    archived = body.status == "archived"
    change = KeyChange(
        name=body.name,
        enabled=None if archived or body.status is None else body.status == "active",
        revoke=archived,
    )
    key = await services.keys.update(caller, api_key_id, change)
    return _key(key, now)


async def list_rate_limits(
    services: Given,
    caller: Caller,
    *,
    group_type: Annotated[GroupType | None, Query()] = None,
    model: Annotated[str | None, Query(max_length=256)] = None,
    limit: ListLimit = None,
    page: PageCursor = None,
) -> OrganizationRateLimitPage:
    """The limits that the organisation has of its own: one entry, for every model."""
    _one_page(page)
    del limit  # there is one
    caller.require("admin:organization")
    found = await services.directory.organizations.mine(caller)
    models = _models(services)
    if model is not None and services.gateway.catalogue.resolve(model) not in models:
        raise NotFound("There are no limits of a model of this name.")
    values = _values(found.limits)
    if not values or group_type not in {None, "model_group"}:
        return OrganizationRateLimitPage(data=[])
    entry = OrganizationRateLimit(
        id=_limits_id(found.id),
        limits=[RateValue(type=name, value=value) for name, value in values.items()],
        models=models,
    )
    return OrganizationRateLimitPage(data=[entry])


async def list_workspace_rate_limits(
    workspace_id: WorkspaceId,
    services: Given,
    caller: Caller,
    *,
    group_type: Annotated[GroupType | None, Query()] = None,
    include_inherited: Annotated[bool, Query()] = False,
    limit: ListLimit = None,
    page: PageCursor = None,
) -> WorkspaceRateLimitPage:
    """The limits that a project has of its own, and where asked for its organisation's."""
    _one_page(page)
    del limit  # there is one
    project = await services.directory.projects.get(caller, workspace_id)
    entry = await _limits(services, caller, project, inherited=include_inherited)
    if not entry.limits or group_type not in {None, "model_group"}:
        return WorkspaceRateLimitPage(data=[])
    return WorkspaceRateLimitPage(data=[entry])


async def update_workspace_rate_limits(
    workspace_id: WorkspaceId,
    rate_limit_id: RateLimitId,
    body: WorkspaceRateLimitUpdate,
    services: Given,
    caller: Caller,
) -> WorkspaceRateLimit:
    """Set limits of a project; null takes one away. It holds at once."""
    wanted = {rate_of(change.type): change.value for change in body.limits}
    old = await services.directory.projects.get(caller, workspace_id)
    if rate_limit_id != _limits_id(old.organization_id):
        raise NotFound("There are no limits with this id.")
    limits = {**(rates.to_row(old.limits) or {}), **wanted}
    project = await services.directory.projects.update(
        caller, workspace_id, ProjectChange(limits=limits)
    )
    return await _limits(services, caller, project, inherited=False)


async def _limits(
    services: Services, caller: Principal, project: Project, *, inherited: bool
) -> WorkspaceRateLimit:
    organization = await services.directory.organizations.mine(caller)
    own, above = _values(project.limits), _values(organization.limits)
    shown = {**above, **own} if inherited else own
    return WorkspaceRateLimit(
        limits=[
            WorkspaceRateValue(
                org_limit=above.get(name),
                source={"type": "workspace" if name in own else "organization"},
                type=name,
                value=value,
            )
            for name, value in shown.items()
        ],
        models=_models(services),
        rate_limit_id=_limits_id(organization.id),
        workspace_id=project.id,
    )


def _values(limits: Limits | None) -> dict[str, int]:
    row = rates.to_row(limits) or {}
    return {name: row[name] for name in SHOWN_RATES if name in row}


def _models(services: Services) -> list[str]:
    catalogue = services.gateway.catalogue
    return [*catalogue.aliases, *catalogue.listed()]


def _limits_id(organization_id: str) -> str:
    return "rlmt_" + organization_id.removeprefix("org_")


def _one_page(page: str | None) -> None:
    if page:
        raise bad_cursor()


def _key(key: ApiKey, now: Millis) -> KeyOfAdminApi:
    who: dict[str, str] | None = None
    if key.user_id is not None:
        who = {"type": "user_actor", "user_id": key.user_id}
    elif key.service_account_id is not None:
        who = {
            "type": "service_account_actor",
            "service_account_id": key.service_account_id,
        }
    maker = actor(key.created_by)
    return KeyOfAdminApi(
        id=key.id,
        created_at=iso(key.created_at),
        created_by=None
        if maker is None
        else Actor(id=maker, type="user" if maker.startswith("user_") else "service_account"),
        expires_at=moment(key.expires_at),
        name=key.name,
        partial_key_hint=f"sm_live_...{key.hint}" if key.hint else None,
        principal=who,
        scope={"type": "workspace", "workspace_id": key.owner.project_id},
        status=key.status(now),
    )


def install(api: FastAPI) -> None:
    """Add the routes."""
    tag = "organization"
    keys = "/v1/organizations/api_keys"
    key = f"{keys}/{{api_key_id}}"
    rate_limits = "/v1/organizations/workspaces/{workspace_id}/rate_limits"
    for method, path, endpoint, summary, reply, refusals in (
        ("GET", keys, list_organization_keys, "List keys", KeyPage, (404,)),
        ("GET", key, get_organization_key, "Show a key", KeyOfAdminApi, (404,)),
        ("POST", key, update_organization_key, "Change a key", KeyOfAdminApi, (404,)),
        (
            "GET",
            "/v1/organizations/rate_limits",
            list_rate_limits,
            "List limits",
            OrganizationRateLimitPage,
            (404,),
        ),
        (
            "GET",
            rate_limits,
            list_workspace_rate_limits,
            "List a project's limits",
            WorkspaceRateLimitPage,
            (404,),
        ),
        (
            "POST",
            f"{rate_limits}/{{rate_limit_id}}",
            update_workspace_rate_limits,
            "Set a project's limits",
            WorkspaceRateLimit,
            (404, 409),
        ),
    ):
        add(
            api,
            method,
            path,
            endpoint,
            summary=summary,
            reply=reply,
            refusals=refusals,
            tag=tag,
        )
