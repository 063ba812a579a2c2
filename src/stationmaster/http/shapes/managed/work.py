"""The work of self-hosted environments, as shown."""

from typing import Annotated, Literal

from pydantic import Field

from stationmaster.http.shapes.base import Reply, Request
from stationmaster.http.shapes.managed.terms import Metadata, MetadataPatch, NextPage

State = Literal["queued", "starting", "active", "stopping", "stopped"]


class SessionWork(Reply):
    """What is to be done: a session is to be served."""

    id: str
    type: Literal["session"] = "session"


class Work(Reply):
    """A piece of work."""

    id: str
    type: Literal["work"] = "work"
    environment_id: str
    data: SessionWork
    state: State
    metadata: Metadata
    secret: Annotated[
        str | None,
        Field(description="What the work is done with; told to who polls it, and never again."),
    ] = None
    created_at: str
    acknowledged_at: str | None
    started_at: str | None
    latest_heartbeat_at: str | None
    stop_requested_at: str | None
    stopped_at: str | None


class WorkPage(Reply):
    """Work, newest first."""

    data: list[Work]
    next_page: NextPage


class WorkUpdate(Request):
    """What to change."""

    metadata: MetadataPatch


class WorkStop(Request):
    """How to stop."""

    force: Annotated[
        bool, Field(description="At once, without waiting for the worker to finish.")
    ] = False


class Heartbeat(Reply):
    """What a heartbeat has come to."""

    type: Literal["work_heartbeat"] = "work_heartbeat"
    last_heartbeat: Annotated[str, Field(description="What the next one expects.")]
    lease_extended: bool
    state: State
    ttl_seconds: int


class WorkStats(Reply):
    """How an environment's queue stands."""

    type: Literal["work_queue_stats"] = "work_queue_stats"
    depth: Annotated[int, Field(description="How much waits for a worker.")]
    pending: Annotated[int, Field(description="How much is given out, and not acknowledged yet.")]
    oldest_queued_at: str | None
    workers_polling: Annotated[
        int, Field(description="Workers that have polled in the last 30 seconds, by their ids.")
    ]


class EnvironmentKeyRequest(Request):
    """A key for an environment's workers."""

    name: Annotated[str, Field(description="3 to 50 letters, digits, dashes or underscores.")] = (
        "environment-key"
    )
    expires_in_seconds: Annotated[
        int | None, Field(description="After which it ends by itself; null is never.")
    ] = None


class EnvironmentKey(Reply):
    """A key for an environment's workers, without its secret."""

    id: str
    type: Literal["environment_key"] = "environment_key"
    environment_id: str
    name: str
    hint: Annotated[str, Field(description="The last characters of the secret.")]
    status: Literal["active", "inactive", "archived", "expired"]
    created_at: str
    expires_at: str | None
    last_used_at: str | None


class NewEnvironmentKey(EnvironmentKey):
    """A key for an environment's workers, and its secret."""

    key: Annotated[str, Field(description="The secret. It is shown this once.")]


class EnvironmentKeyPage(Reply):
    """Keys, newest first."""

    data: list[EnvironmentKey]
    next_page: NextPage
