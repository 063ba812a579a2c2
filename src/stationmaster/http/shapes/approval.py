"""Approvals: calls of tools that wait for somebody."""

from typing import Annotated, Any, Literal

from pydantic import Field

from stationmaster.http.shapes.base import Reply, Request

State = Literal["pending", "allowed", "denied", "answered", "expired", "cancelled"]


class DecisionRequest(Request):
    """What is decided on a call."""

    decision: Literal["allow", "deny"]
    message: Annotated[
        str | None, Field(description="For the agent, at most 10 KB; with `deny` alone.")
    ] = None
    input: Annotated[
        dict[str, Any] | None,
        Field(description="Run the tool with this input instead; with `allow` alone."),
    ] = None
    always: Annotated[
        bool, Field(description="Do not ask again for this tool in this session.")
    ] = False


class Approval(Reply):
    """A call that waits or waited."""

    id: str
    session_id: str
    run_id: str
    kind: Annotated[
        Literal["confirmation", "custom_tool", "tool"],
        Field(
            description="Whether it waits for a person's word, for a client's result, or for that"
            " of a self-hosted environment's worker."
        ),
    ]
    event_id: Annotated[str, Field(description="The id of the call's event in its session.")]
    tool: str
    input: dict[str, Any]
    state: Annotated[State, Field(description="All but `pending` are final.")]
    answer: Annotated[
        dict[str, Any] | None,
        Field(description="What was decided: `message`, `input`, `always`; or the result."),
    ]
    decided_by: Annotated[
        str | None, Field(description="The key or user; null where nobody came in time.")
    ]
    created_at: str
    expires_at: Annotated[str, Field(description="When it is denied, if nobody has come.")]
    decided_at: str | None


class ApprovalList(Reply):
    """Approvals, newest first."""

    approvals: list[Approval]
    has_more: bool
    next: Annotated[str | None, Field(description="The next page's `after`; null on the last.")]
