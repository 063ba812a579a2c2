"""What the server says of itself."""

from typing import Annotated, Any, Literal

from pydantic import Field

from stationmaster.http.shapes.base import Reply


class ServerMap(Reply):
    """Where things are."""

    name: str
    version: str
    docs: str
    openapi: str
    health: str
    ready: str
    live: str
    metrics: str | None
    endpoints: dict[str, str]


class HealthReport(Reply):
    """How the server and its parts are."""

    status: Literal["ok", "degraded"]
    version: str
    uptime_seconds: float
    services: Annotated[
        dict[str, dict[str, Any]],
        Field(
            description="For each part its `status`: `ok`, `overloaded`, `degraded` or `down`, with"
            " details."
            " Details that could name a path or a host are for callers with a key."
        ),
    ]


class QueuedRuns(Reply):
    """What waits of one priority."""

    queued: int
    oldest_seconds: Annotated[
        float, Field(description="How long ago the one was asked for that waits longest; else 0.")
    ]


class QueueReport(Reply):
    """What there is to do for workers, on all servers together."""

    queued: Annotated[int, Field(description="Runs that wait for a worker.")]
    running: Annotated[int, Field(description="Runs that a worker has.")]
    unfinished: Annotated[
        int, Field(description="Both. Divided by `MAX_WORKERS` it is how many workers to have.")
    ]
    oldest_seconds: Annotated[float, Field(description="Of all that wait.")]
    priorities: Annotated[
        dict[str, QueuedRuns], Field(description="What waits as `low`, `normal` and `high`.")
    ]


class Readiness(Reply):
    """Whether new work is welcome."""

    ready: bool
    reason: Annotated[
        str | None, Field(description="Such as `shutting_down` or `database_not_ready`.")
    ] = None


class Liveness(Reply):
    """The process answers."""

    status: Literal["ok"] = "ok"


class PartStatus(Reply):
    """Whether one part of the server answers."""

    status: Literal["ok", "down", "overloaded", "degraded", "unused"]
