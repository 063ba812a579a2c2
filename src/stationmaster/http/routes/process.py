"""`POST /v1/process`: a model call in the words of clients that know many providers."""

import time
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from stationmaster.gateway import Gateway, GatewayCall
from stationmaster.http.deps import Caller, Given
from stationmaster.http.entrance import CLIENT_GONE
from stationmaster.http.framework import request_id_of
from stationmaster.http.limiting import address_of
from stationmaster.http.problems import not_offered
from stationmaster.http.routes.table import add
from stationmaster.http.shapes.process import (
    ProcessMetadata,
    ProcessReply,
    ProcessRequest,
    ProcessUsage,
)
from stationmaster.http.streams import gone, race
from stationmaster.http.task_request import check_project
from stationmaster.http.wire.anthropic import told
from stationmaster.kernel.errors import (
    BudgetExceeded,
    Denied,
    Exhausted,
    Invalid,
    NotFound,
    StationmasterError,
    Unavailable,
    Upstream,
)
from stationmaster.kernel.money import to_dollars

USUAL = "sonnet"
# The first line with a word of the name in it decides.
_LIKE: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("haiku", ("haiku",)),
    ("opus", ("opus",)),
    (USUAL, ("sonnet", "claude")),
    ("haiku", ("gpt-3.5", "mini", "nano", "flash")),
    ("opus", ("gpt-4-turbo", "gpt-4o", "o1")),
)
_PRO = "gemini"  # has "mini" in it, and is none


async def process(
    request: Request, body: ProcessRequest, services: Given, caller: Caller
) -> Response:
    """Call a model.

    A provider of this server's answers itself. Else, and for a model that nobody serves, the
    answer is from the Claude that is like it: `metadata.mapped_from` says so. A budget that does
    not cover the call is 403 here.
    """
    caller.require("write:messages")
    check_project(body.project_id, caller)
    refused = _unbuilt(body)
    if refused is not None:
        return not_offered(refused, request_id_of(request))
    place, answer = await race(_answer(request, body, services.gateway), gone(request.receive))
    if place == 1:
        return Response(status_code=CLIENT_GONE)
    return JSONResponse(answer.model_dump(mode="json"))


def _unbuilt(body: ProcessRequest) -> Invalid | None:
    if body.additional_params is not None and body.additional_params.stream:
        param, instead = "additional_params.stream", "the WebSocket /v1/stream"
    elif body.async_processing:
        param, instead = "async_processing", "POST /v1/batches"
    elif body.use_cli:
        param, instead = "use_cli", "POST /v1/task"
    else:
        return None
    return Invalid(f"{param}: Not here; use {instead}.", code="not_offered", param=param)


async def _answer(request: Request, body: ProcessRequest, gateway: Gateway) -> ProcessReply:
    started = time.monotonic()
    provider, model = _choose(gateway, body)
    try:
        call = await gateway.admit(
            request.state.principal,
            msgspec.json.encode(_chat(body, model)),
            [(name.lower(), value) for name, value in request.headers.items()],
            operation="chat",
            address=address_of(request.scope),
            provider=provider,
        )
    except BudgetExceeded as error:
        # Not a 429: this route's clients would try that again.
        raise Denied(error.message, code=error.error_code, **error.details) from None
    try:
        await call.start()
    finally:
        await call.aclose()
    return _reply(body, call, model, time.monotonic() - started)


def _choose(gateway: Gateway, body: ProcessRequest) -> tuple[str | None, str]:
    """Who is to answer, None for whoever serves the model; and the model's name here."""
    names = {upstream.name for upstream in gateway.models.upstreams()}
    provider = body.provider if body.provider in names else None
    try:
        gateway.check_model(body.model_name)
    except NotFound:
        return provider, claude_like(body.model_name)
    return provider, body.model_name


def claude_like(name: str) -> str:
    """The alias of the Claude that is like a model of some vendor's."""
    name = name.lower().replace(_PRO, "")
    for alias, words in _LIKE:
        if any(word in name for word in words):
            return alias
    return USUAL


def _chat(body: ProcessRequest, model: str) -> dict[str, Any]:
    chat: dict[str, Any] = {"model": model, "messages": _messages(body)}
    if body.max_tokens is not None:
        chat["max_completion_tokens"] = body.max_tokens
    if body.temperature is not None:
        chat["temperature"] = body.temperature
    if body.tools:
        chat["tools"] = body.tools
        if body.tool_choice is not None:
            chat["tool_choice"] = body.tool_choice
    if body.output_schema is not None:
        schema = {"name": "answer", "schema": body.output_schema}
        chat["response_format"] = {"type": "json_schema", "json_schema": schema}
    return chat


def _messages(body: ProcessRequest) -> list[dict[str, Any]]:
    if body.messages:
        kept = {"role", "content", "tool_call_id", "tool_calls"}
        return [each.model_dump(include=kept, exclude_none=True) for each in body.messages]
    said = body.user_message or body.content
    if not said:
        raise Invalid(
            "messages: There is nothing to answer: send `messages`, `user_message` or `content`.",
            param="messages",
        )
    system = [{"role": "system", "content": body.system_message}] if body.system_message else []
    return [*system, {"role": "user", "content": said}]


class _Function(msgspec.Struct):
    name: str
    arguments: str = "{}"


class _ToolCall(msgspec.Struct):
    id: str
    function: _Function


class _Said(msgspec.Struct):
    content: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct):
    message: _Said
    finish_reason: str | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]


_completion = msgspec.json.Decoder(_Completion)


def _reply(body: ProcessRequest, call: GatewayCall, model: str, seconds: float) -> ProcessReply:
    raw, entry = call.body or b"", call.entry
    if call.status != HTTPStatus.OK or entry is None:
        raise _failure(call.status, told(raw)[1])
    try:
        choice = _completion.decode(raw).choices[0]
        blocks = _blocks(choice.message)
    except (msgspec.DecodeError, UnicodeDecodeError, IndexError):
        raise Upstream("The model provider's answer is not a completion.") from None
    context, usage = call.context, entry.usage
    mapped = (body.provider, body.model_name) != (context.provider, model)
    asked, served = f"{body.provider}:{body.model_name}", f"{context.provider}:{model}"
    return ProcessReply(
        content=choice.message.content or "",
        content_blocks=blocks,
        model=body.model_name,
        provider=body.provider,
        metadata=ProcessMetadata(
            actual_model=context.model,
            actual_provider=context.provider,
            usage=ProcessUsage(
                input_tokens=usage.total - usage.output_tokens,
                output_tokens=usage.output_tokens,
                total_tokens=usage.total,
            ),
            cost_usd=to_dollars(entry.cost),
            processing_time=round(seconds, 3),
            finish_reason=choice.finish_reason,
            mapped_from=f"{asked} → {served}" if mapped else None,
            warnings=[
                f"{name} is ignored"
                for name in ("media_content", "memory")
                if getattr(body, name) is not None
            ],
        ),
    )


def _blocks(said: _Said) -> list[dict[str, Any]] | None:
    if not said.tool_calls:
        return None
    text = [{"type": "text", "text": said.content}] if said.content else []
    return text + [
        {
            "type": "tool_use",
            "id": each.id,
            "name": each.function.name,
            "input": msgspec.json.decode(each.function.arguments or "{}"),
        }
        for each in said.tool_calls
    ]


def _failure(status: int, message: str) -> StationmasterError:
    """A provider's refusal, in this route's words."""
    match status:
        case HTTPStatus.BAD_REQUEST | HTTPStatus.UNPROCESSABLE_ENTITY:
            return Invalid(message, code="upstream_refused")
        case HTTPStatus.TOO_MANY_REQUESTS:
            return Exhausted(message, code="upstream_rate_limited", retry_after=5.0)
        case HTTPStatus.SERVICE_UNAVAILABLE | 529:
            return Unavailable(message, code="upstream_overloaded")
    return Upstream(message, status=status)


def install(api: FastAPI) -> None:
    """Add the route."""
    add(
        api,
        "POST",
        "/v1/process",
        process,
        tag="models",
        summary="Call a model of any provider",
        reply=ProcessReply,
        errors=(404, 413, 422, 501, 502, 504),
    )
