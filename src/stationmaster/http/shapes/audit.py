"""The audit log, as it is listed and exported."""

from typing import Annotated, Any

from pydantic import Field

from stationmaster.http.shapes.base import Reply


class AuditEntry(Reply):
    """Who did what, on what, from where, when, and how it went."""

    seq: Annotated[int, Field(description="Its number in the organisation's chain, from 1.")]
    at: str
    organization_id: str
    project_id: str | None
    actor_kind: Annotated[
        str, Field(description="`key`, `user`, `run`, `server`, or `anonymous` for nobody known.")
    ]
    actor_id: str
    actor_hint: Annotated[str, Field(description="The last four characters of the actor's key.")]
    address: str | None
    request_id: str | None
    action: Annotated[str, Field(description="Such as `key.create`.")]
    target: str | None
    outcome: Annotated[str, Field(description="`success`, `refused` or `failed`.")]
    details: dict[str, Any]
    hash: Annotated[str, Field(description="Over this entry and the hash of the one before it.")]


class AuditList(Reply):
    """The organisation's entries, newest first."""

    entries: list[AuditEntry]
    has_more: bool
    next: Annotated[str | None, Field(description="The next page's `after`; null on the last.")]
