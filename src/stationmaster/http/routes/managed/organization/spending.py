"""Spend limits: the hard budgets in dollars of the organisation, its projects and its users."""

from typing import Annotated, Any

from fastapi import FastAPI, Path, Query

from stationmaster.access.paging import Window
from stationmaster.access.people import User
from stationmaster.budgets.definition import Changes, DefinedBudget, SubjectKind, Terms
from stationmaster.budgets.totals import Sought
from stationmaster.http.cursors import id_cursor
from stationmaster.http.deps import Caller, Given
from stationmaster.http.routes.managed.organization.reports import PER_CENT, cents
from stationmaster.http.routes.managed.query import PAGE_SIZE, PageCursor, PageLimit
from stationmaster.http.routes.managed.table import add
from stationmaster.http.services import Services
from stationmaster.http.shapes.organization import Removed
from stationmaster.http.shapes.spending import (
    Period,
    SpendLimit,
    SpendLimitPage,
    SpendLimitSet,
    SpendScope,
    SpendSummary,
    SpendSummaryPage,
)
from stationmaster.kernel.clock import iso
from stationmaster.kernel.errors import Invalid, NotFound
from stationmaster.kernel.principal import Principal

LimitId = Annotated[str, Path(description="The limit's id, `bud_…`.")]
ScopeTypes = Annotated[list[str] | None, Query(alias="scope_type[]", max_length=8)]
Periods = Annotated[list[Period] | None, Query(alias="period[]", max_length=3)]
UserIds = Annotated[list[str] | None, Query(alias="user_ids[]", max_length=100)]

SCOPE = "admin:organization"
PERIODS = {"day": "daily", "week": "weekly", "month": "monthly"}
OURS = {theirs: ours for ours, theirs in PERIODS.items()}
_KINDS: dict[str, SubjectKind] = {
    "organization": "organization",
    "workspace": "project",
    "user": "user",
}
_NAMES = {ours: theirs for theirs, ours in _KINDS.items()}
_WHOLE = 100  # budgets looked at in one go


async def set_spend_limit(body: SpendLimitSet, services: Given, caller: Caller) -> SpendLimit:
    """Set what a month, a week or a day may cost. A limit of the same scope and period changes."""
    caller.require(SCOPE)
    if body.amount is None:
        raise Invalid("Delete the limit: amount cannot be null here.", param="amount")
    kind, subject_id = _subject(body.scope, caller)
    limit = int(body.amount) * PER_CENT
    present = await limits_of(services, caller, kind, subject_id)
    same = [each for each in present if PERIODS[each.terms.period] == body.period]
    if same:
        changed = await services.budgets.update(caller, same[0].id, Changes(limit=limit))
        return view_of(changed)
    terms = Terms(kind, subject_id, "usd", limit, period=OURS[body.period])  # type: ignore[arg-type]
    return view_of(await services.budgets.create(caller, terms))


async def list_spend_limits(
    services: Given,
    caller: Caller,
    *,
    limit: PageLimit = PAGE_SIZE,
    page: PageCursor = None,
    scope_type: ScopeTypes = None,
    workspace_id: Annotated[str | None, Query(max_length=64)] = None,
) -> SpendLimitPage:
    """The limits, newest first. Budgets of other kinds are at `/v1/budgets`."""
    caller.require(SCOPE)
    found = await services.budgets.list(
        caller,
        limit=limit,
        after=id_cursor(page, "bud"),
        subject_kind=None if workspace_id is None else "project",
        subject_id=workspace_id,
    )
    kinds = set(_KINDS) if scope_type is None else set(scope_type)
    data = [view_of(each) for each in found.items if _is_limit(each)]
    shown = [each for each in data if each.scope["type"] in kinds]
    return SpendLimitPage(data=shown, next_page=found.next_cursor)


async def get_spend_limit(spend_limit_id: LimitId, services: Given, caller: Caller) -> SpendLimit:
    """A limit."""
    return view_of(await _limit(services, caller, spend_limit_id))


async def delete_spend_limit(spend_limit_id: LimitId, services: Given, caller: Caller) -> Removed:
    """End a limit."""
    found = await _limit(services, caller, spend_limit_id)
    await services.budgets.delete(caller, found.id)
    return Removed(id=found.id, type="spend_limit_deleted")


async def list_effective_spend_limits(
    services: Given,
    caller: Caller,
    *,
    limit: PageLimit = PAGE_SIZE,
    page: PageCursor = None,
    period: Periods = None,
    user_ids: UserIds = None,
) -> SpendSummaryPage:
    """What holds for each user: a limit of the user's own, else the organisation's."""
    caller.require(SCOPE)
    found = await services.directory.users.list(caller, Window(limit, id_cursor(page, "user")))
    above = await limits_of(services, caller, "organization", caller.owner.organization_id)
    rows = []
    for user in found.items:
        if user_ids is None or user.id in user_ids:
            rows += await effective(services, caller, user, above, set(period or OURS))
    return SpendSummaryPage(data=rows, next_page=found.items[-1].id if found.has_more else None)


async def effective(
    services: Services,
    caller: Principal,
    user: User,
    above: list[DefinedBudget],
    periods: set[str],
) -> list[SpendSummary]:
    """What holds for a user in the periods of these names; `above` is the organisation's."""
    own = await limits_of(services, caller, "user", user.id)
    rows = []
    for ours, theirs in PERIODS.items():
        present = [each for each in own if each.terms.period == ours]
        present = present or [each for each in above if each.terms.period == ours]
        if theirs in periods and present:
            tightest = min(present, key=lambda each: each.terms.limit)
            rows.append(await _summary(services, caller, user, tightest))
    return rows


async def _summary(
    services: Services, caller: Principal, user: User, budget: DefinedBudget
) -> SpendSummary:
    sought = Sought(since=budget.period_start, user_id=user.id)
    sums = await services.reports.rows(caller, sought, whole_organization=True)
    source = _scope(budget)
    return SpendSummary(
        actor=actor_of(user.id, user),
        amount=cents(budget.terms.limit),
        period=PERIODS[budget.terms.period],  # type: ignore[arg-type]
        period_to_date_spend=cents(sum(row.total.cost for row in sums)),
        scope={"type": "user", "user_id": user.id},
        source=source,
        spend_limit_id=budget.id,
    )


def actor_of(user_id: str, user: User | None) -> dict[str, Any]:
    """Somebody as the SDK has it; of one who is gone the id is left."""
    return {
        "type": "user_actor",
        "user_id": user_id,
        "name": None if user is None else user.name,
        "email_address": None if user is None else user.email,
        "deleted": user is None,
    }


async def limits_of(
    services: Services, caller: Principal, kind: SubjectKind, subject_id: str
) -> list[DefinedBudget]:
    """The spend limits of one subject, newest first."""
    found = await services.budgets.list(
        caller, limit=_WHOLE, subject_kind=kind, subject_id=subject_id
    )
    return [each for each in found.items if _is_limit(each)]


async def _limit(services: Services, caller: Principal, budget_id: str) -> DefinedBudget:
    caller.require(SCOPE)
    found = await services.budgets.get(caller, budget_id)
    if not _is_limit(found):
        raise NotFound("There is no spend limit with this id.")
    return found


def _is_limit(budget: DefinedBudget) -> bool:
    terms = budget.terms
    return (
        terms.unit == "usd"
        and terms.mode == "hard"
        and terms.period in PERIODS
        and terms.subject_kind in _NAMES
        and not budget.by_server
    )


def _subject(scope: SpendScope, caller: Principal) -> tuple[SubjectKind, str]:
    given = {"workspace": scope.workspace_id, "user": scope.user_id}
    named = {kind for kind, value in given.items() if value is not None}
    if named != {scope.type} - {"organization"}:
        raise Invalid("scope names what its type says, and nothing else.", param="scope")
    subject_id = given.get(scope.type) or caller.owner.organization_id
    return _KINDS[scope.type], subject_id


def _scope(budget: DefinedBudget) -> dict[str, Any]:
    name, subject_id = _NAMES[budget.terms.subject_kind], budget.terms.subject_id
    if name == "organization":
        return {"type": name}
    return {"type": name, f"{name}_id": subject_id}


def view_of(budget: DefinedBudget) -> SpendLimit:
    """A limit as the SDK has it."""
    return SpendLimit(
        id=budget.id,
        amount=cents(budget.terms.limit),
        created_at=iso(budget.created_at),
        period=PERIODS[budget.terms.period],  # type: ignore[arg-type]
        scope=_scope(budget),
        updated_at=iso(budget.created_at),
    )


def install(api: FastAPI) -> None:
    """Add the routes."""
    tag, here = "organization", "/v1/organizations/spend_limits"
    one, removed = f"{here}/{{spend_limit_id}}", Removed
    for method, path, endpoint, summary, reply, refusals in (
        (
            "GET",
            f"{here}/effective",
            list_effective_spend_limits,
            "List what holds for each user",
            SpendSummaryPage,
            (),
        ),
        ("POST", here, set_spend_limit, "Set a spend limit", SpendLimit, (404, 409)),
        ("GET", here, list_spend_limits, "List spend limits", SpendLimitPage, (404,)),
        ("GET", one, get_spend_limit, "Show a spend limit", SpendLimit, (404,)),
        ("DELETE", one, delete_spend_limit, "End a spend limit", removed, (404,)),
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
