"""Approvals: listed, shown, decided."""

from typing import Annotated

from fastapi import FastAPI, Path, Query

from stationmaster.http.deps import Caller, Given
from stationmaster.http.routes.table import add
from stationmaster.http.routes.tasks import Limit
from stationmaster.http.shapes.approval import Approval, ApprovalList, DecisionRequest, State
from stationmaster.kernel.clock import iso
from stationmaster.kernel.paging import DEFAULT_LIMIT
from stationmaster.sessions import approval as records
from stationmaster.sessions.approvals import Decision

ApprovalId = Annotated[str, Path(description="The approval's id, `appr_…`.")]


async def list_approvals(
    services: Given,
    caller: Caller,
    *,
    limit: Limit = DEFAULT_LIMIT,
    after: Annotated[
        str | None, Query(max_length=64, description="`next` of the page before.")
    ] = None,
    session_id: Annotated[
        str | None, Query(max_length=64, description="Only those of this session.")
    ] = None,
    state: Annotated[State | None, Query(description="Only those in this state.")] = None,
) -> ApprovalList:
    """Calls of tools that wait for somebody, or waited; newest first."""
    page = await services.approvals.list(
        caller, limit=limit, after=after, session_id=session_id, state=state
    )
    return ApprovalList(
        approvals=[_view(item) for item in page.items],
        has_more=page.next_cursor is not None,
        next=page.next_cursor,
    )


async def get_approval(approval_id: ApprovalId, services: Given, caller: Caller) -> Approval:
    """One approval."""
    return _view(await services.approvals.get(caller, approval_id))


async def decide_approval(
    approval_id: ApprovalId, body: DecisionRequest, services: Given, caller: Caller
) -> Approval:
    """Allow or deny a call that waits. Whoever is first decides; a second answer is refused."""
    decision = Decision(
        allow=body.decision == "allow",
        message=body.message,
        input=body.input,
        always=body.always,
    )
    return _view(await services.approvals.decide(caller, approval_id, decision))


def _view(approval: records.Approval) -> Approval:
    decided = approval.decided_at
    return Approval(
        id=approval.id,
        session_id=approval.session_id,
        run_id=approval.run_id,
        kind=approval.kind,
        event_id=approval.event_id,
        tool=approval.name,
        input=approval.input,
        state=approval.state,
        answer=approval.answer,
        decided_by=approval.decided_by,
        created_at=iso(approval.created_at),
        expires_at=iso(approval.expires_at),
        decided_at=None if decided is None else iso(decided),
    )


def install(api: FastAPI) -> None:
    """Add the routes."""
    tag, here = "approvals", "/v1/approvals"
    one = f"{here}/{{approval_id}}"
    add(
        api,
        "GET",
        here,
        list_approvals,
        tag=tag,
        summary="List approvals",
        reply=ApprovalList,
        errors=(404, 422),
    )
    add(
        api,
        "GET",
        one,
        get_approval,
        tag=tag,
        summary="Show an approval",
        reply=Approval,
        errors=(404,),
    )
    add(
        api,
        "POST",
        one,
        decide_approval,
        tag=tag,
        summary="Allow or deny a call",
        reply=Approval,
        errors=(404, 409, 413, 422),
    )
