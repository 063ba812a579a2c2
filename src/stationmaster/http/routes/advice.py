"""`POST /v1/route`: which model a chat would get that names none."""

from fastapi import FastAPI

from stationmaster.http.advising import Adviser
from stationmaster.http.deps import Caller, Given
from stationmaster.http.routes.table import add
from stationmaster.http.shapes.advice import BudgetStatus, RouteReply, RouteRequest
from stationmaster.kernel.money import to_dollars


async def recommend_model(request: RouteRequest, services: Given, caller: Caller) -> RouteReply:
    """Say which model a chat with this prompt would get if it named none. Costs nothing."""
    caller.require("write:messages")
    adviser = Adviser(services.reports, services.options)
    advice, standing = await adviser.advise(caller, request.prompt, request.context_size)
    return RouteReply(
        recommended_model=advice.model,
        reasoning=advice.reason,
        budget_status=BudgetStatus(
            total_tokens=standing.tokens,
            total_cost=to_dollars(standing.cost),
            limit=standing.limit,
            remaining=standing.remaining,
        ),
    )


def install(api: FastAPI) -> None:
    """Add the route."""
    add(
        api,
        "POST",
        "/v1/route",
        recommend_model,
        tag="models",
        summary="Ask which model would be chosen",
        reply=RouteReply,
        errors=(422,),
    )
