"""Requests for a higher spend limit: users ask, who manages the organisation decides."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query

from stationmaster.access.people import User
from stationmaster.budgets import SpendRequest
from stationmaster.http.cursors import id_cursor
from stationmaster.http.deps import Caller, Given
from stationmaster.http.routes.managed.organization.reports import PER_CENT
from stationmaster.http.routes.managed.organization.spending import (
    OURS,
    PERIODS,
    actor_of,
    effective,
    limits_of,
    view_of,
)
from stationmaster.http.routes.managed.organization.words import moment
from stationmaster.http.routes.managed.query import PAGE_SIZE, PageCursor, PageLimit
from stationmaster.http.routes.managed.table import add
from stationmaster.http.services import Services
from stationmaster.http.shapes.spending import (
    IncreaseRequest,
    IncreaseRequestApprove,
    IncreaseRequestApproved,
    IncreaseRequestCreate,
    IncreaseRequestDeny,
    IncreaseRequestPage,
    SpendSummary,
)
from stationmaster.kernel.clock import iso
from stationmaster.kernel.errors import NotFound
from stationmaster.kernel.principal import Principal

RequestId = Annotated[
    str, Path(alias="spend_limit_increase_request_id", description="The request's id, `slir_…`.")
]
ActorIds = Annotated[list[str] | None, Query(alias="actor_ids[]", max_length=100)]
Statuses = Annotated[list[str] | None, Query(alias="status[]", max_length=3)]

_USER = "user_"


async def create_increase_request(
    body: IncreaseRequestCreate, services: Given, caller: Caller
) -> IncreaseRequest:
    """Ask for a higher limit of your own. One that is pending already is the answer."""
    made = await services.spend_requests.ask(caller, OURS[body.period])  # type: ignore[arg-type]
    # What the limit is, is for who manages them to see.
    return IncreaseRequest(
        **_fields(made, await _people(services, caller, [made])), spend_summary=None
    )


async def list_increase_requests(
    services: Given,
    caller: Caller,
    *,
    limit: PageLimit = PAGE_SIZE,
    page: PageCursor = None,
    actor_ids: ActorIds = None,
    status: Statuses = None,
) -> IncreaseRequestPage:
    """The requests of those who are in the organisation, newest first."""
    found = await services.spend_requests.list(
        caller,
        limit=limit,
        after=id_cursor(page, "slir"),
        user_ids=actor_ids,
        statuses=status,
    )
    people = await _people(services, caller, found.items)
    shown = [each for each in found.items if each.user_id in people]
    return IncreaseRequestPage(
        data=[await _view(services, caller, each, people) for each in shown],
        next_page=found.next_cursor,
    )


async def get_increase_request(
    request_id: RequestId, services: Given, caller: Caller
) -> IncreaseRequest:
    """A request."""
    found, people = await _of_member(services, caller, request_id)
    return await _view(services, caller, found, people)


async def approve_increase_request(
    request_id: RequestId, body: IncreaseRequestApprove, services: Given, caller: Caller
) -> IncreaseRequestApproved:
    """Set the user's own limit as high as you say. The organisation's own holds beside it."""
    await _of_member(services, caller, request_id)
    found, budget = await services.spend_requests.approve(
        caller,
        request_id,
        int(body.amount) * PER_CENT,
        period=None if body.period is None else OURS[body.period],  # type: ignore[arg-type]
    )
    fields = _fields(found, await _people(services, caller, [found]))
    return IncreaseRequestApproved(**fields, spend_summary=None, spend_limit=view_of(budget))


async def deny_increase_request(
    request_id: RequestId, body: IncreaseRequestDeny, services: Given, caller: Caller
) -> IncreaseRequest:
    """Refuse a request."""
    await _of_member(services, caller, request_id)
    found = await services.spend_requests.deny(caller, request_id)
    return await _view(services, caller, found, await _people(services, caller, [found]))


async def _of_member(
    services: Services, caller: Principal, request_id: str
) -> tuple[SpendRequest, Mapping[str, User]]:
    caller.require("admin:members")  # it shows a person
    found = await services.spend_requests.get(caller, request_id)
    people = await _people(services, caller, [found])
    if found.user_id not in people:
        raise NotFound("There is no spend limit increase request with this id.")
    return found, people


async def _people(
    services: Services, caller: Principal, found: Iterable[SpendRequest]
) -> Mapping[str, User]:
    ids = {each for request in found for each in (request.user_id, request.resolved_by) if each}
    return await services.directory.users.named(caller, ids)


async def _view(
    services: Services, caller: Principal, found: SpendRequest, people: Mapping[str, User]
) -> IncreaseRequest:
    summary = None
    if found.status == "pending":
        summary = await _summary(services, caller, people[found.user_id], found.period)
    return IncreaseRequest(**_fields(found, people), spend_summary=summary)


async def _summary(
    services: Services, caller: Principal, user: User, period: str
) -> SpendSummary | None:
    above = await limits_of(services, caller, "organization", caller.owner.organization_id)
    rows = await effective(services, caller, user, above, {PERIODS[period]})
    return rows[0] if rows else None


def _fields(found: SpendRequest, people: Mapping[str, User]) -> dict[str, Any]:
    by = found.resolved_by
    if by is not None and by.startswith(_USER):
        resolved_by: dict[str, Any] | None = actor_of(by, people.get(by))
    elif by is not None:
        resolved_by = {"type": "scoped_api_key_actor", "scoped_api_key_id": by}
    else:
        resolved_by = None
    return {
        "id": found.id,
        "actor": actor_of(found.user_id, people.get(found.user_id)),
        "created_at": iso(found.created_at),
        "period": PERIODS[found.period],
        "resolved_at": moment(found.resolved_at),
        "resolved_by": resolved_by,
        "status": found.status,
    }


def install(api: FastAPI) -> None:
    """Add the routes."""
    here = "/v1/organizations/spend_limit_increase_requests"
    one = f"{here}/{{spend_limit_increase_request_id}}"
    for method, path, endpoint, summary, reply, refusals in (
        (
            "POST",
            here,
            create_increase_request,
            "Ask for a higher spend limit",
            IncreaseRequest,
            (409,),
        ),
        (
            "GET",
            here,
            list_increase_requests,
            "List requests for a higher spend limit",
            IncreaseRequestPage,
            (),
        ),
        ("GET", one, get_increase_request, "Show a request", IncreaseRequest, (404,)),
        (
            "POST",
            f"{one}/approve",
            approve_increase_request,
            "Approve a request",
            IncreaseRequestApproved,
            (404, 409),
        ),
        ("POST", f"{one}/deny", deny_increase_request, "Deny a request", IncreaseRequest, (404,)),
    ):
        add(
            api,
            method,
            path,
            endpoint,
            summary=summary,
            reply=reply,
            refusals=refusals,
            tag="organization",
        )
