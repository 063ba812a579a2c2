"""Which model would be chosen, and why."""

from typing import Annotated

from pydantic import Field

from stationmaster.http.shapes.base import Reply, Request


class RouteRequest(Request):
    """A prompt, and how many tokens come with it."""

    prompt: Annotated[str, Field(min_length=1, max_length=1_000_000)]
    context_size: Annotated[int, Field(ge=0, le=2**31)] = 0


class BudgetStatus(Reply):
    """This month, of the key's project. Limits are in tokens, and null without a budget."""

    total_tokens: int
    total_cost: float
    limit: int | None
    remaining: int | None


class RouteReply(Reply):
    """The model, and why."""

    recommended_model: str
    reasoning: str
    budget_status: BudgetStatus
