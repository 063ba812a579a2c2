"""`stationmaster usage`."""

import sys
from enum import StrEnum
from typing import Annotated, Any

import typer

from stationmaster.cli.printing import dollars, print_json, print_table, say
from stationmaster.cli.target import KeyFileOption, OutputOption, UrlOption, shared_of


class Period(StrEnum):
    """`month` is the calendar month in UTC, `week` and `day` the last 7 days and 24 hours."""

    day = "day"
    week = "week"
    month = "month"


class Form(StrEnum):
    """How an export is written."""

    csv = "csv"
    json = "json"


def usage(
    context: typer.Context,
    *,
    period: Annotated[Period, typer.Option("--period", help="How far back.")] = Period.month,
    by: Annotated[
        str | None,
        typer.Option(
            "--by",
            metavar="NAMES",
            help="Tell apart by day or hour, project, key, user, model, session or tag; commas.",
        ),
    ] = None,
    organization: Annotated[
        bool, typer.Option("--organization", help="Of the whole organisation.")
    ] = False,
    export: Annotated[
        Form | None, typer.Option("--export", help="Write out every call instead, to stdout.")
    ] = None,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """Show what the project of your key has used, by model or by what you name."""
    from stationmaster.client.budgets import BudgetClient

    shared = shared_of(context)
    scope = {"scope": "organization"} if organization else {}
    with shared.target(url, key_file).client() as client:
        if export is not None:
            asked = {"period": period.value, "format": export.value, **scope}
            BudgetClient(client).export(sys.stdout.buffer, **asked)
            return
        groups = {"group_by": by} if by is not None else {}
        found = BudgetClient(client).usage(period.value, **groups, **scope)
    if shared.json(output):
        print_json(found)
        return
    _tell(found, by)


def _tell(found: dict[str, Any], by: str | None) -> None:
    total = (f"{found.get('total_tokens', 0):,}", dollars(found.get("total_cost", 0.0)))
    say(f"Project {found.get('project_id')}, {found.get('period')}")
    if found.get("limit") is not None:
        say(f"Budget {found['limit']:,} tokens, {found.get('remaining', 0):,} left")
    if by is None:
        parts = found.get("by_model") or {}
        rows = [(name, *_cells(part)) for name, part in parts.items()]
        print_table(("MODEL", "TOKENS", "COST"), [*rows, ("all", *total)])
        return
    groups = found.get("groups") or []
    rows = [(_name(group), *_cells(group)) for group in groups]
    print_table((by.upper(), "TOKENS", "COST"), [*rows, ("all", *total)])


def _cells(part: dict[str, Any]) -> tuple[str, str]:
    return f"{part.get('tokens', 0):,}", dollars(part.get("cost", 0.0))


def _name(group: dict[str, Any]) -> str:
    values = [group.get("starts_at"), *(group.get("by") or {}).values()]
    return " ".join(str(value) for value in values if value is not None) or "-"
