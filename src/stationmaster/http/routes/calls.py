"""Calls that are kept: listed, read, forgotten, and whether any are."""

from typing import Annotated, Any

from fastapi import FastAPI, Path, Query

from stationmaster.calls import KeptCall, Pattern, Policy, Sought
from stationmaster.http.deps import Caller, Given
from stationmaster.http.routes.audit import Since, Until
from stationmaster.http.routes.table import Secret, add
from stationmaster.http.routes.tasks import Limit
from stationmaster.http.shapes import calls as shapes
from stationmaster.kernel.clock import iso
from stationmaster.kernel.paging import DEFAULT_LIMIT

Id = Annotated[str | None, Query(max_length=128)]
CallId = Annotated[str, Path(max_length=128, description="The call's id, as in the ledger.")]
ProjectId = Annotated[str, Path(max_length=64, description="The project's id, `proj_…`.")]


async def list_calls(
    services: Given,
    caller: Caller,
    *,
    key_id: Id = None,
    user_id: Id = None,
    session_id: Id = None,
    run_id: Id = None,
    model: Id = None,
    outcome: Id = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = DEFAULT_LIMIT,
    after: Annotated[
        str | None, Query(max_length=160, description="`next` of the page before.")
    ] = None,
) -> shapes.CallList:
    """The project's kept calls, newest first, without what was said in them."""
    sought = Sought(key_id, user_id, session_id, run_id, model, outcome, since, until)
    page = await services.calls.list(caller, sought, limit=limit, after=after)
    return shapes.CallList(
        calls=[shapes.CallSummary(**_summary(call)) for call in page.items],
        has_more=page.next_cursor is not None,
        next=page.next_cursor,
    )


async def get_call(call_id: CallId, services: Given, caller: Caller) -> shapes.KeptCall:
    """What was said in a call. That it was read is itself on record."""
    call = await services.calls.get(caller, call_id)
    return shapes.KeptCall(
        **_summary(call),
        request=call.request,
        answer=call.answer,
        left_out=dict(call.left_out),  # type: ignore[arg-type]
    )


async def delete_call(call_id: CallId, services: Given, caller: Caller) -> shapes.CallsDeleted:
    """Forget what was said in a call. Its line in the ledger stays."""
    await services.calls.delete(caller, call_id)
    return shapes.CallsDeleted(deleted=1)


async def clear_calls(services: Given, caller: Caller) -> shapes.CallsDeleted:
    """Forget every call that is kept of your project. Their lines in the ledger stay."""
    return shapes.CallsDeleted(deleted=await services.calls.clear(caller))


async def get_call_policy(
    project_id: ProjectId, services: Given, caller: Caller
) -> shapes.CallPolicy:
    """What a project keeps of its calls."""
    project = await services.directory.projects.get(caller, project_id)
    return _policy(project.id, await services.calls.policy(caller, project.id))


async def set_call_policy(
    project_id: ProjectId, body: shapes.CallPolicyRequest, services: Given, caller: Caller
) -> shapes.CallPolicy:
    """Choose what a project keeps of its calls from now on."""
    project = await services.directory.projects.get(caller, project_id)
    wanted = Policy(
        enabled=body.enabled,
        requests=body.requests,
        answers=body.answers,
        agent_calls=body.agent_calls,
        retention_days=body.retention_days,
        rules=tuple(body.rules),
        patterns=tuple(Pattern(each.name, each.pattern) for each in body.patterns),
    )
    return _policy(project.id, await services.calls.set_policy(caller, project.id, wanted))


def _summary(call: KeptCall) -> dict[str, Any]:
    return {
        "id": call.id,
        "at": iso(call.at),
        "project_id": call.owner.project_id,
        "key_id": call.key_id,
        "user_id": call.user_id,
        "session_id": call.session_id,
        "run_id": call.run_id,
        "operation": call.operation,
        "provider": call.provider,
        "model": call.model,
        "outcome": call.outcome,
    }


def _policy(project_id: str, policy: Policy) -> shapes.CallPolicy:
    return shapes.CallPolicy(
        project_id=project_id,
        enabled=policy.enabled,
        requests=policy.requests,
        answers=policy.answers,
        agent_calls=policy.agent_calls,
        retention_days=policy.retention_days,
        rules=list(policy.rules),
        patterns=[
            shapes.CallPattern(name=each.name, pattern=each.pattern) for each in policy.patterns
        ],
    )


def install(api: FastAPI) -> None:
    """Add the routes."""
    tag, here, one = "calls", "/v1/calls", "/v1/calls/{call_id}"
    add(
        api,
        "GET",
        here,
        list_calls,
        tag=tag,
        summary="List kept calls",
        reply=shapes.CallList,
        errors=(422,),
    )
    add(
        api,
        "GET",
        one,
        get_call,
        tag=tag,
        summary="Read a kept call",
        reply=shapes.KeptCall,
        response_class=Secret,
        errors=(404,),
    )
    add(
        api,
        "DELETE",
        one,
        delete_call,
        tag=tag,
        summary="Forget a call",
        reply=shapes.CallsDeleted,
        errors=(404,),
    )
    add(
        api,
        "DELETE",
        here,
        clear_calls,
        tag=tag,
        summary="Forget all calls of the project",
        reply=shapes.CallsDeleted,
    )
    policy = "/api/admin/projects/{project_id}/call-policy"
    add(
        api,
        "GET",
        policy,
        get_call_policy,
        tag=tag,
        summary="Show what a project keeps of its calls",
        reply=shapes.CallPolicy,
        errors=(404,),
    )
    add(
        api,
        "PUT",
        policy,
        set_call_policy,
        tag=tag,
        summary="Choose what a project keeps of its calls",
        reply=shapes.CallPolicy,
        errors=(404, 413, 422),
    )
