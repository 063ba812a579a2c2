"""Calls that are kept, and what a project keeps of them."""

from typing import Annotated, Any, Literal

from pydantic import Field

from stationmaster.calls.policy import (
    DEFAULT_RETENTION_DAYS,
    DEFAULT_RULES,
    MAX_NAME,
    MAX_PATTERN,
    MAX_PATTERNS,
    MAX_RETENTION_DAYS,
    Rule,
)
from stationmaster.http.shapes.base import Reply, Request


class CallPattern(Request):
    """A regular expression; what it matches is replaced by its name in brackets."""

    name: Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
    pattern: Annotated[
        str, Field(min_length=1, max_length=MAX_PATTERN, description="In RE2's syntax.")
    ]


class CallPolicyRequest(Request):
    """What a project keeps of its calls. What is not named goes back to its default."""

    enabled: Annotated[bool, Field(description="Whether anything is kept.")]
    requests: Annotated[bool, Field(description="What models are asked.")] = True
    answers: Annotated[bool, Field(description="What they answer.")] = True
    agent_calls: Annotated[
        bool, Field(description="Also the calls that agents make in their runs.")
    ] = False
    retention_days: Annotated[int, Field(ge=1, le=MAX_RETENTION_DAYS)] = DEFAULT_RETENTION_DAYS
    rules: Annotated[
        list[Rule],
        Field(
            default_factory=lambda: list(DEFAULT_RULES),
            max_length=20,
            description="What is taken out. Secrets of known shapes always are.",
        ),
    ]
    patterns: Annotated[list[CallPattern], Field(default_factory=list, max_length=MAX_PATTERNS)]


class CallPolicy(Reply):
    """What a project keeps of its calls."""

    project_id: str
    enabled: bool
    requests: bool
    answers: bool
    agent_calls: bool
    retention_days: int
    rules: list[Rule]
    patterns: list[CallPattern]


class CallSummary(Reply):
    """A call that is kept, without what was said."""

    id: Annotated[str, Field(description="As in the ledger.")]
    at: str
    project_id: str
    key_id: str
    user_id: str | None
    session_id: str | None
    run_id: str | None
    operation: Annotated[str, Field(description="The format: `messages`, `chat`, `responses`, …")]
    provider: str
    model: str
    outcome: str


class KeptCall(CallSummary):
    """A call that is kept."""

    request: Annotated[
        Any, Field(description="As the client sent it, redacted. Null where it is not kept.")
    ]
    answer: Annotated[
        Any,
        Field(
            description="As the client got it, redacted; a stream is put together. Null where it"
            " is not kept."
        ),
    ]
    left_out: Annotated[
        dict[str, Literal["not_wanted", "too_large"]],
        Field(description="Why `request` or `answer` is not kept."),
    ]


class CallList(Reply):
    """A page of kept calls."""

    calls: list[CallSummary]
    has_more: bool
    next: str | None


class CallsDeleted(Reply):
    """What was forgotten."""

    deleted: int
