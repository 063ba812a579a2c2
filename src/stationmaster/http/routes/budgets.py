"""Budgets: set, shown, changed, deleted; and what they have told."""

from decimal import Decimal, InvalidOperation
from typing import Annotated

from fastapi import FastAPI, Path, Query

from stationmaster.budgets import Changes, DefinedBudget, Terms
from stationmaster.budgets.alert import Alerts
from stationmaster.budgets.entry import Unit
from stationmaster.http.deps import Caller, Given
from stationmaster.http.routes.table import add
from stationmaster.http.routes.tasks import Limit
from stationmaster.http.shapes import budget as shapes
from stationmaster.kernel.clock import iso
from stationmaster.kernel.errors import Invalid
from stationmaster.kernel.money import PER_DOLLAR, parse_dollars
from stationmaster.kernel.paging import DEFAULT_LIMIT
from stationmaster.kernel.principal import Principal

BudgetId = Annotated[str, Path(description="The budget's id, `bud_…`.", max_length=64)]


async def create_budget(
    body: shapes.BudgetRequest, services: Given, caller: Caller
) -> shapes.Budget:
    """Set a budget. It counts from now on, for every call that is not under way yet."""
    unit, limit = _limit(body.limit_usd, body.limit_tokens)
    if unit is None or limit is None:
        raise Invalid("Give one of limit_usd and limit_tokens.", param="limit_usd")
    terms = Terms(
        subject_kind=body.subject.type,
        subject_id=_subject_id(body.subject, caller),
        unit=unit,
        limit=limit,
        period=body.period,
        mode=body.mode,
        time_zone=body.time_zone,
        alerts=_alerts(body.alerts, unit),
    )
    return _view(await services.budgets.create(caller, terms))


async def list_budgets(
    *,
    services: Given,
    caller: Caller,
    subject_type: Annotated[
        str | None, Query(max_length=16, description="Only of this kind of subject.")
    ] = None,
    subject_id: Annotated[
        str | None, Query(max_length=64, description="Only of this subject.")
    ] = None,
    limit: Limit = DEFAULT_LIMIT,
    after: Annotated[
        str | None, Query(max_length=64, description="`next` of the page before.")
    ] = None,
) -> shapes.BudgetList:
    """The budgets that were set, newest first. Tasks' and sessions' own are not among them."""
    page = await services.budgets.list(
        caller, limit=limit, after=after, subject_kind=subject_type, subject_id=subject_id
    )
    return shapes.BudgetList(
        budgets=[_view(each) for each in page.items],
        has_more=page.next_cursor is not None,
        next=page.next_cursor,
    )


async def get_budget(budget_id: BudgetId, services: Given, caller: Caller) -> shapes.Budget:
    """One budget, with what is spent, held and left."""
    return _view(await services.budgets.get(caller, budget_id))


async def update_budget(
    budget_id: BudgetId, body: shapes.BudgetChange, services: Given, caller: Caller
) -> shapes.Budget:
    """Change a budget's limit, mode or alerts, at once."""
    unit, limit = _limit(body.limit_usd, body.limit_tokens)
    present = await services.budgets.get(caller, budget_id)
    if unit not in {None, present.terms.unit}:
        raise Invalid(
            f"This budget counts {present.terms.unit}; make another for the other unit.",
            param=f"limit_{unit}",
        )
    changes = Changes(limit, body.mode, _alerts(body.alerts, present.terms.unit))
    return _view(await services.budgets.update(caller, budget_id, changes))


async def delete_budget(budget_id: BudgetId, services: Given, caller: Caller) -> shapes.Budget:
    """End a budget: it limits nothing any more."""
    return _view(await services.budgets.delete(caller, budget_id))


async def list_budget_alerts(
    services: Given,
    caller: Caller,
    after: Annotated[
        int, Query(ge=0, le=2**53, description="The number of the last one you have seen.")
    ] = 0,
    limit: Limit = DEFAULT_LIMIT,
) -> shapes.AlertList:
    """The alerts of your project's budgets, oldest first, from its stream in the book."""
    found = await services.budgets.told(caller, after=after, limit=limit)
    return shapes.AlertList(
        alerts=[
            shapes.Alert(seq=each.seq, type=each.type, created_at=iso(each.at), data=each.data)
            for each in found
        ],
        next=found[-1].seq if found else after,
    )


def _limit(usd: shapes.Dollars | None, tokens: int | None) -> tuple[Unit, int] | tuple[None, None]:
    if usd is not None and tokens is not None:
        raise Invalid("Give one of limit_usd and limit_tokens.", param="limit_tokens")
    if usd is not None:
        return "usd", _micros(usd, "limit_usd")
    return ("tokens", tokens) if tokens is not None else (None, None)


def _micros(value: shapes.Dollars, param: str) -> int:
    """Micro-dollars. A limit is never rounded: what it says is what it is."""
    micros = parse_dollars(value, param=param)
    try:
        exact = Decimal(str(value)) * PER_DOLLAR == micros
    except InvalidOperation:  # more digits than anybody needs
        exact = False
    if not exact:
        raise Invalid(f"{param} may have up to six decimals.", param=param)
    return micros


def _subject_id(subject: shapes.SubjectRequest, caller: Principal) -> str:
    if subject.id is not None:
        return subject.id
    own = {
        "organization": caller.owner.organization_id,
        "project": caller.owner.project_id,
        "key": caller.key_id,
    }
    if subject.type not in own:
        raise Invalid(f"Say which {subject.type}.", param="subject")
    return own[subject.type]


def _alerts(asked: shapes.AlertsRequest | None, unit: Unit) -> Alerts | None:
    if asked is None:
        return None
    if (asked.remaining_tokens if unit == "usd" else asked.remaining_usd) != []:
        raise Invalid("What is left is told in the unit of the budget.", param="alerts")
    remaining = (
        [_micros(each, "alerts") for each in asked.remaining_usd]
        if unit == "usd"
        else asked.remaining_tokens
    )
    return Alerts(tuple(dict.fromkeys(asked.percent)), tuple(dict.fromkeys(remaining)))


def _view(budget: DefinedBudget) -> shapes.Budget:
    terms, balance = budget.terms, budget.balance
    dollars = terms.unit == "usd"

    def show(amount: int) -> str | int:
        return _dollars(amount) if dollars else amount

    return shapes.Budget(
        id=budget.id,
        subject=shapes.Subject(type=terms.subject_kind, id=terms.subject_id),
        limit_usd=_dollars(terms.limit) if dollars else None,
        limit_tokens=None if dollars else terms.limit,
        period=terms.period,
        time_zone=terms.time_zone,
        mode=terms.mode,
        spent=show(balance.spent),
        held=show(balance.held),
        remaining=show(balance.remaining),
        period_start=None if budget.period_end is None else iso(budget.period_start),
        period_end=None if budget.period_end is None else iso(budget.period_end),
        refused_at=None if balance.refused_at is None else iso(balance.refused_at),
        alerts=shapes.Alerts(
            percent=list(budget.alerts.percent),
            remaining=[show(each) for each in budget.alerts.remaining],
        ),
        project_id=budget.owner.project_id,
        by_server=budget.by_server,
        created_at=iso(budget.created_at),
    )


def _dollars(micros: int) -> str:
    """Exact, with two decimals at least."""
    whole, rest = divmod(micros, PER_DOLLAR)
    return f"{whole}.{f'{rest:06}'.rstrip('0').ljust(2, '0')}"


def install(api: FastAPI) -> None:
    """Add the routes."""
    tag, here = "budgets", "/v1/budgets"
    one = f"{here}/{{budget_id}}"
    add(
        api,
        "POST",
        here,
        create_budget,
        tag=tag,
        summary="Set a budget",
        reply=shapes.Budget,
        status=201,
        errors=(404, 409, 413, 422),
    )
    add(
        api,
        "GET",
        here,
        list_budgets,
        tag=tag,
        summary="List budgets",
        reply=shapes.BudgetList,
        errors=(404, 422),
    )
    add(
        api,
        "GET",
        "/v1/budget-alerts",
        list_budget_alerts,
        tag=tag,
        summary="List alerts of budgets",
        reply=shapes.AlertList,
        errors=(422,),
    )
    add(
        api,
        "GET",
        one,
        get_budget,
        tag=tag,
        summary="Show a budget",
        reply=shapes.Budget,
        errors=(404, 422),
    )
    add(
        api,
        "PATCH",
        one,
        update_budget,
        tag=tag,
        summary="Change a budget",
        reply=shapes.Budget,
        errors=(404, 409, 413, 422),
    )
    add(
        api,
        "DELETE",
        one,
        delete_budget,
        tag=tag,
        summary="Delete a budget",
        reply=shapes.Budget,
        errors=(404, 409, 413, 422),
    )
