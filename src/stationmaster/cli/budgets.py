"""`stationmaster budgets`: needs a key that may manage budgets."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from stationmaster.cli.exits import CommandError, Exit
from stationmaster.cli.printing import print_json, print_table, say, warn
from stationmaster.cli.target import KeyFileOption, OutputOption, Shared, UrlOption, shared_of


class Kind(StrEnum):
    """What a budget may be of."""

    organization = "organization"
    project = "project"
    key = "key"
    user = "user"
    session = "session"
    run = "run"
    tag = "tag"


class Period(StrEnum):
    """How long a limit is for."""

    total = "total"
    day = "day"
    week = "week"
    month = "month"


class Mode(StrEnum):
    """What happens to a call that a budget does not cover."""

    hard = "hard"
    soft = "soft"
    degrade = "degrade"


UsdOption = Annotated[str | None, typer.Option("--usd", metavar="AMOUNT", help="In dollars.")]
TokensOption = Annotated[int | None, typer.Option("--tokens", min=0, help="In tokens.")]
BudgetId = Annotated[str, typer.Argument(metavar="BUDGET_ID")]


def create(
    context: typer.Context,
    kind: Annotated[Kind, typer.Argument(help="What it is of.")],
    subject_id: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="Its id; left out: your own. For a tag, the tag."),
    ] = None,
    *,
    usd: UsdOption = None,
    tokens: TokensOption = None,
    period: Annotated[Period, typer.Option("--period", help="How long for.")] = Period.total,
    mode: Annotated[
        Mode, typer.Option("--mode", help="Refuse, only tell, or use a cheaper model.")
    ] = Mode.hard,
    time_zone: Annotated[
        str, typer.Option("--time-zone", metavar="NAME", help="Whose calendar.")
    ] = "UTC",
    alert_percent: Annotated[
        list[int] | None,
        typer.Option("--alert-percent", min=1, max=100, help="Tell at so much spent; repeat."),
    ] = None,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """Set a budget: --usd or --tokens. It counts from now on."""
    if (usd is None) == (tokens is None):
        raise CommandError("Give one of --usd and --tokens.", Exit.USAGE)
    subject = {"type": kind.value, **({} if subject_id is None else {"id": subject_id})}
    body: dict[str, Any] = {
        "subject": subject,
        **_limit(usd, tokens),
        "period": period.value,
        "mode": mode.value,
        "time_zone": time_zone,
    }
    if alert_percent:
        body["alerts"] = {"percent": alert_percent}
    shared = shared_of(context)
    with shared.target(url, key_file).client() as client:
        _show(shared, output, _budgets(client).create(body))


def list_budgets(
    context: typer.Context,
    *,
    kind: Annotated[Kind | None, typer.Option("--of", help="Only of this kind.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100)] = 20,
    after: Annotated[str | None, typer.Option("--after", metavar="BUDGET_ID")] = None,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """List the budgets that were set, the newest first."""
    shared = shared_of(context)
    with shared.target(url, key_file).client() as client:
        page = _budgets(client).budgets(
            limit=limit, after=after, subject_type=None if kind is None else kind.value
        )
    if shared.json(output):
        print_json({"budgets": page.items, "next": page.next_cursor})
        return
    _table(page.items)
    if page.next_cursor:
        warn(f"There are more: --after {page.next_cursor}")


def show(
    context: typer.Context,
    budget_id: BudgetId,
    *,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """Show one budget, with what is spent, held and left."""
    shared = shared_of(context)
    with shared.target(url, key_file).client() as client:
        _show(shared, output, _budgets(client).get(budget_id))


def update(
    context: typer.Context,
    budget_id: BudgetId,
    *,
    usd: UsdOption = None,
    tokens: TokensOption = None,
    mode: Annotated[Mode | None, typer.Option("--mode", help="Another mode.")] = None,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """Change a budget's limit or mode, at once."""
    body = {**_limit(usd, tokens), **({} if mode is None else {"mode": mode.value})}
    if not body:
        raise CommandError("Say what to change: --usd, --tokens or --mode.", Exit.USAGE)
    shared = shared_of(context)
    with shared.target(url, key_file).client() as client:
        _show(shared, output, _budgets(client).update(budget_id, body))


def delete(
    context: typer.Context,
    budget_id: BudgetId,
    *,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
) -> None:
    """End a budget: it limits nothing any more."""
    with shared_of(context).target(url, key_file).client() as client:
        _budgets(client).delete(budget_id)
    say(f"Budget {budget_id} is deleted.")


def alerts(
    context: typer.Context,
    *,
    after: Annotated[int, typer.Option("--after", min=0, help="Only those that follow.")] = 0,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """List what the project's budgets have told, the oldest first."""
    shared = shared_of(context)
    with shared.target(url, key_file).client() as client:
        found = _budgets(client).alerts(after=after, limit=100)
    if shared.json(output):
        print_json({"alerts": found})
        return
    data = [alert.get("data") or {} for alert in found]
    print_table(
        ("SEQ", "WHEN", "BUDGET", "OF", "THRESHOLD"),
        [
            (
                alert.get("seq"),
                alert.get("created_at"),
                each.get("budget_id"),
                _subject(each),
                _threshold(each.get("threshold") or {}),
            )
            for alert, each in zip(found, data, strict=True)
        ],
    )


def _budgets(client: Any) -> Any:
    from stationmaster.client.budgets import BudgetClient

    return BudgetClient(client)


def _limit(usd: str | None, tokens: int | None) -> dict[str, Any]:
    given = {"limit_usd": usd, "limit_tokens": tokens}
    return {name: value for name, value in given.items() if value is not None}


def _show(shared: Shared, output: Any, budget: dict[str, Any]) -> None:
    if shared.json(output):
        print_json(budget)
    else:
        _table([budget])


def _table(items: list[dict[str, Any]]) -> None:
    print_table(
        ("ID", "OF", "MODE", "PERIOD", "LIMIT", "SPENT", "HELD", "LEFT"),
        [
            (
                item.get("id"),
                _subject(item),
                item.get("mode"),
                item.get("period"),
                *(_amount(item, item.get(name)) for name in ("limit", "spent", "held")),
                _amount(item, item.get("remaining")),
            )
            for item in (_with_limit(each) for each in items)
        ],
    )


def _with_limit(item: dict[str, Any]) -> dict[str, Any]:
    usd = item.get("limit_usd")
    return {**item, "limit": item.get("limit_tokens") if usd is None else usd}


def _amount(item: dict[str, Any], value: object) -> str:
    return f"{value} tokens" if item.get("limit_usd") is None else f"${value}"


def _subject(item: dict[str, Any]) -> str:
    subject = item.get("subject") or {}
    return f"{subject.get('type')} {subject.get('id')}"


def _threshold(threshold: dict[str, Any]) -> str:
    if "percent" in threshold:
        return f"{threshold['percent']} % spent"
    return f"less than {threshold.get('remaining')} left"
