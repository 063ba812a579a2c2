"""Budgets, as set and as shown."""

from typing import Annotated, Any, Literal

from pydantic import Field

from stationmaster.http.shapes.base import Reply, Request

SubjectType = Literal["organization", "project", "key", "user", "session", "run", "tag"]
Dollars = str | int | float


class SubjectRequest(Request):
    """What a budget is of."""

    type: SubjectType
    id: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=64,
            description="Left out: your own organisation, project or key. A tag is its own id.",
        ),
    ] = None


class AlertsRequest(Request):
    """When to tell, each once in a period."""

    percent: Annotated[
        list[Annotated[int, Field(ge=1, le=100)]],
        Field(max_length=10, description="At so many hundredths of the limit spent."),
    ] = []  # noqa: RUF012 - Pydantic copies it
    remaining_usd: Annotated[
        list[Dollars], Field(max_length=10, description="With less than so many dollars left.")
    ] = []  # noqa: RUF012
    remaining_tokens: Annotated[
        list[Annotated[int, Field(ge=1)]],
        Field(max_length=10, description="With less than so many tokens left."),
    ] = []  # noqa: RUF012


class BudgetRequest(Request):
    """A budget to be set: a limit in dollars or in tokens."""

    subject: SubjectRequest
    limit_usd: Annotated[
        Dollars | None,
        Field(description='Dollars with up to six decimals, such as `"0.05"`. `"0"` is zero.'),
    ] = None
    limit_tokens: Annotated[
        int | None, Field(ge=0, le=10**15, description="Tokens of all four classes together.")
    ] = None
    period: Annotated[
        Literal["total", "day", "week", "month"],
        Field(description="How long the limit is for. A week begins on Monday."),
    ] = "total"
    time_zone: Annotated[
        str, Field(max_length=64, description="Whose calendar, such as `Europe/Berlin`.")
    ] = "UTC"
    mode: Annotated[
        Literal["hard", "soft", "degrade"],
        Field(
            description="What happens to a call that it does not cover: `hard` refuses it, `soft`"
            " only tells, `degrade` has a cheaper model answer."
        ),
    ] = "hard"
    alerts: Annotated[
        AlertsRequest | None,
        Field(description="Left out: at 90 %, and with less than 1,000 tokens left."),
    ] = None


class BudgetChange(Request):
    """What is to be different of a budget."""

    limit_usd: Annotated[Dollars | None, Field(description="Of a budget in dollars.")] = None
    limit_tokens: Annotated[
        int | None, Field(ge=0, le=10**15, description="Of a budget in tokens.")
    ] = None
    mode: Literal["hard", "soft", "degrade"] | None = None
    alerts: AlertsRequest | None = None


class Subject(Reply):
    """What a budget is of."""

    type: str
    id: str


class Alerts(Reply):
    """When it tells. `remaining` is in the budget's unit."""

    percent: list[int]
    remaining: list[str | int]


class Budget(Reply):
    """A budget in its present period. Amounts are dollars as text, or tokens as numbers."""

    id: str
    subject: Subject
    limit_usd: Annotated[str | None, Field(description="Null: it counts tokens.")]
    limit_tokens: Annotated[int | None, Field(description="Null: it counts dollars.")]
    period: str
    time_zone: str
    mode: str
    spent: Annotated[str | int, Field(description="What calls have cost that are over.")]
    held: Annotated[str | int, Field(description="The worst case of calls under way.")]
    remaining: Annotated[str | int, Field(description="What a new call may still hold.")]
    period_start: Annotated[str | None, Field(description="Null for a total.")]
    period_end: str | None
    refused_at: Annotated[str | None, Field(description="When a call was last refused for it.")]
    alerts: Alerts
    project_id: str
    by_server: Annotated[
        bool, Field(description="A task's or session's own; it cannot be changed here.")
    ]
    created_at: str


class BudgetList(Reply):
    """Budgets, newest first."""

    budgets: list[Budget]
    has_more: bool
    next: Annotated[str | None, Field(description="The next page's `after`; null on the last.")]


class Alert(Reply):
    """A threshold that was crossed."""

    seq: int
    type: str
    created_at: str
    data: dict[str, Any]


class AlertList(Reply):
    """Alerts of the project, oldest first."""

    alerts: list[Alert]
    next: Annotated[int, Field(description="The next page's `after`.")]
