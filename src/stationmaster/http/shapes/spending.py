"""Usage, cost and spend limits, as Anthropic's Admin API has them. Amounts are in cents."""

from typing import Annotated, Any, Literal

from pydantic import Field

from stationmaster.http.shapes.base import Reply, Request
from stationmaster.http.shapes.managed.session import CacheCreation

Cents = Annotated[str, Field(description='In cents: "2500" is $25.00, "0.25" a quarter of one.')]


class ServerToolUse(Reply):
    """Not counted apart: what it cost is in the cost."""

    web_search_requests: int = 0


class _Group(Reply):
    """What a sum is of. Only `model` can be told apart."""

    claude_tag_category: None = None
    claude_tag_user_id: None = None
    context_window: None = None
    inference_geo: None = None
    model: str | None
    product: None = None
    rbac_group_id: None = None
    requests: int
    slack_channel_id: None = None
    speed: None = None


class UsageResult(_Group):
    """Tokens of some calls together."""

    cache_creation: CacheCreation
    cache_read_input_tokens: int
    output_tokens: int
    server_tool_use: ServerToolUse = ServerToolUse()
    uncached_input_tokens: int


class CostResult(_Group):
    """The cost of some calls together."""

    amount: Cents
    cost_type: None = None
    currency: Literal["USD"] = "USD"
    list_amount: Cents
    token_type: None = None


class UsageBucket(Reply):
    """The sums of a stretch of time."""

    ending_at: str
    results: list[UsageResult]
    starting_at: str


class CostBucket(Reply):
    """The sums of a stretch of time."""

    ending_at: str
    results: list[CostResult]
    starting_at: str


class _Report(Reply):
    data_refreshed_at: Annotated[str, Field(description="Now: sums are of the ledger itself.")]
    has_more: bool
    next_page: str | None


class UsageReportPage(_Report):
    """Stretches of time, oldest first."""

    data: list[UsageBucket]


class CostReportPage(_Report):
    """Stretches of time, oldest first."""

    data: list[CostBucket]


Period = Literal["daily", "weekly", "monthly"]


class SpendScope(Request):
    """What a limit is of: the organisation, a project, or a user."""

    type: Literal["organization", "workspace", "user"]
    workspace_id: Annotated[str | None, Field(max_length=64)] = None
    user_id: Annotated[str | None, Field(max_length=64)] = None


class SpendLimitSet(Request):
    """A limit to be set."""

    amount: Annotated[
        str | None, Field(pattern=r"^[0-9]{1,13}$", description="Whole cents. null is not here.")
    ]
    scope: SpendScope
    period: Period = "monthly"


class SpendLimit(Reply):
    """A limit: a hard budget in dollars, which resets with its period."""

    id: str
    amount: Cents
    created_at: str
    currency: Literal["USD"] = "USD"
    is_enabled: Literal[True] = True
    period: Period
    scope: dict[str, Any]
    type: Literal["spend_limit"] = "spend_limit"
    updated_at: Annotated[str, Field(description="As `created_at`: changes are in the audit log.")]


class SpendLimitPage(Reply):
    """Limits, newest first."""

    data: list[SpendLimit]
    next_page: str | None


class SpendSummary(Reply):
    """What holds for a user in a period, and what the user has spent in it."""

    actor: dict[str, Any]
    amount: Cents
    currency: Literal["USD"] = "USD"
    period: Period
    period_to_date_spend: Cents
    scope: dict[str, Any]
    source: dict[str, Any]
    spend_limit_id: str


class SpendSummaryPage(Reply):
    """Users, newest first, with a row for each period."""

    data: list[SpendSummary]
    next_page: str | None


class IncreaseRequestCreate(Request):
    """What is asked for. Whose limit it is, the credential says."""

    period: Period = "monthly"


class IncreaseRequestApprove(Request):
    """What is granted."""

    amount: Annotated[str, Field(pattern=r"^[0-9]{1,13}$", description="Whole cents.")]
    period: Annotated[Period | None, Field(description="The request's, where none is given.")] = (
        None
    )
    suppress_notification: Annotated[
        bool | None, Field(description="Changes nothing: no mail is sent.")
    ] = None


class IncreaseRequestDeny(Request):
    """A refusal."""

    suppress_notification: Annotated[
        bool | None, Field(description="Changes nothing: no mail is sent.")
    ] = None


class IncreaseRequest(Reply):
    """A user's request for a higher spend limit."""

    id: str
    actor: dict[str, Any]
    created_at: str
    period: Period
    resolved_at: str | None
    resolved_by: dict[str, Any] | None
    spend_summary: Annotated[
        SpendSummary | None,
        Field(description="Of a pending request, where a limit holds for the user."),
    ]
    status: Literal["pending", "approved", "denied"]
    type: Literal["spend_limit_increase_request"] = "spend_limit_increase_request"


class IncreaseRequestApproved(IncreaseRequest):
    """A request that was approved, and the limit that was set by it."""

    spend_limit: SpendLimit


class IncreaseRequestPage(Reply):
    """Requests, newest first."""

    data: list[IncreaseRequest]
    next_page: str | None
