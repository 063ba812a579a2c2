"""`POST /v1/batch`: prompts in parallel, answered together."""

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from stationmaster.batches.prompts import Answered, Asking, Prompt
from stationmaster.http.deps import Caller, Given
from stationmaster.http.entrance import CLIENT_GONE
from stationmaster.http.limiting import address_of
from stationmaster.http.problems import body_of
from stationmaster.http.routes.table import add
from stationmaster.http.shapes.batch import (
    BatchError,
    BatchReply,
    BatchRequest,
    BatchResult,
    BatchUsage,
)
from stationmaster.http.streams import gone, race
from stationmaster.kernel.money import to_dollars


async def answer_batch(
    request: Request, batch: BatchRequest, services: Given, caller: Caller
) -> Response:
    """Answer prompts in parallel, and say of each what came of it.

    One that fails fails alone: the answer is 200 with what the others brought. If the client goes
    away the calls are cancelled.
    """
    prompts = [
        Prompt(str(number) if each.id is None else each.id, each.prompt)
        for number, each in enumerate(batch.prompts)
    ]
    asking = Asking(
        caller,
        batch.model or services.options.default_model,
        batch.timeout,
        address_of(request.scope),
        [(name.lower(), value) for name, value in request.headers.items()],
    )
    place, answered = await race(services.prompts.answer(asking, prompts), gone(request.receive))
    if place == 1:
        return Response(status_code=CLIENT_GONE)
    return JSONResponse(_reply(answered).model_dump(mode="json"))


def _reply(answered: list[Answered]) -> BatchReply:
    results = [_result(each) for each in answered]
    failed = sum(result.status == "failed" for result in results)
    return BatchReply(
        total=len(results),
        completed=len(results) - failed,
        failed=failed,
        results=results,
        total_cost=to_dollars(sum(each.cost for each in answered)),
        total_tokens=sum(each.usage.total for each in answered),
    )


def _result(answered: Answered) -> BatchResult:
    usage = answered.usage
    return BatchResult(
        id=answered.prompt.id,
        prompt=answered.prompt.text,
        status="completed" if answered.error is None else "failed",
        content=answered.content,
        usage=BatchUsage(
            input_tokens=usage.total - usage.output_tokens,
            output_tokens=usage.output_tokens,
            total_tokens=usage.total,
        ),
        cost=to_dollars(answered.cost),
        error=None if answered.error is None else BatchError(**body_of(answered.error)),
    )


def install(api: FastAPI) -> None:
    """Add the route."""
    add(
        api,
        "POST",
        "/v1/batch",
        answer_batch,
        tag="batches",
        summary="Answer prompts in parallel",
        reply=BatchReply,
        errors=(413, 422),
    )
