"""The work of self-hosted environments: polled, acknowledged, kept alive, stopped, looked at."""

from typing import Annotated

from fastapi import FastAPI, Header, Path, Query

from stationmaster.http.cursors import id_cursor
from stationmaster.http.deps import Caller, Given
from stationmaster.http.routes.managed.environments import EnvironmentId
from stationmaster.http.routes.managed.query import PAGE_SIZE, LongLimit, PageCursor
from stationmaster.http.routes.managed.table import add
from stationmaster.http.routes.table import Secret
from stationmaster.http.shapes.managed.work import (
    Heartbeat,
    SessionWork,
    Work,
    WorkPage,
    WorkStats,
    WorkStop,
    WorkUpdate,
)
from stationmaster.kernel.clock import Millis, iso
from stationmaster.sessions import work as verbs

WorkId = Annotated[str, Path(description="The work's id, `work_…`.")]
Block = Annotated[
    int | None, Query(ge=1, le=999, description="How long to wait for work, in milliseconds.")
]
Reclaim = Annotated[
    int | None,
    Query(
        ge=0,
        le=3_600_000,
        description="Give out again what was not acknowledged for so long, in milliseconds.",
    ),
]
WorkerId = Annotated[
    str | None,
    Header(
        alias="Anthropic-Worker-ID", max_length=512, description="By which a worker is counted."
    ),
]
Expected = Annotated[
    str | None,
    Query(
        max_length=64,
        description="`last_heartbeat` of the one before; NO_HEARTBEAT with the first.",
    ),
]
Ttl = Annotated[
    int | None,
    Query(ge=1, le=86_400, description="For how long to keep the work; the server gives no more."),
]


async def poll_work(
    environment_id: EnvironmentId,
    services: Given,
    caller: Caller,
    *,
    block_ms: Block = None,
    reclaim_older_than_ms: Reclaim = None,
    worker_id: WorkerId = None,
) -> Work | None:
    """Be given the work that has waited longest, with its secret; null where there is none."""
    reclaim = verbs.RECLAIM_MS if reclaim_older_than_ms is None else reclaim_older_than_ms
    found = await services.hosting.work.poll(
        caller,
        environment_id,
        block=(block_ms or 0) / 1000,
        reclaim_ms=reclaim,
        worker=worker_id,
    )
    return None if found is None else _view(found[0], secret=found[1])


async def acknowledge_work(
    environment_id: EnvironmentId, work_id: WorkId, services: Given, caller: Caller
) -> Work:
    """Take work that was given to you."""
    return _view(await services.hosting.work.ack(caller, environment_id, work_id))


async def heartbeat_work(
    environment_id: EnvironmentId,
    work_id: WorkId,
    services: Given,
    caller: Caller,
    *,
    expected_last_heartbeat: Expected = None,
    desired_ttl_seconds: Ttl = None,
) -> Heartbeat:
    """Keep work. 412 where another worker may have it by now."""
    beat = await services.hosting.work.heartbeat(
        caller,
        environment_id,
        work_id,
        expected=expected_last_heartbeat,
        ttl=desired_ttl_seconds,
    )
    return Heartbeat.model_validate(
        {
            "last_heartbeat": _iso(beat.heartbeat_at) or "",
            "lease_extended": beat.extended,
            "state": beat.state,
            "ttl_seconds": beat.ttl,
        }
    )


async def stop_work(
    environment_id: EnvironmentId, work_id: WorkId, body: WorkStop, services: Given, caller: Caller
) -> Work:
    """Have work stopped, or stop it at once."""
    return _view(
        await services.hosting.work.stop(caller, environment_id, work_id, force=body.force)
    )


async def get_work(
    environment_id: EnvironmentId, work_id: WorkId, services: Given, caller: Caller
) -> Work:
    """One piece of work."""
    return _view(await services.hosting.work.get(caller, environment_id, work_id))


async def update_work(
    environment_id: EnvironmentId,
    work_id: WorkId,
    body: WorkUpdate,
    services: Given,
    caller: Caller,
) -> Work:
    """Change the metadata of a piece of work."""
    changed = await services.hosting.work.update(
        caller, environment_id, work_id, body.metadata or {}
    )
    return _view(changed)


async def list_work(
    environment_id: EnvironmentId,
    services: Given,
    caller: Caller,
    limit: LongLimit = PAGE_SIZE,
    page: PageCursor = None,
) -> WorkPage:
    """The environment's work, newest first, also what has stopped."""
    found = await services.hosting.work.list(
        caller, environment_id, limit=limit, after=id_cursor(page, "work")
    )
    return WorkPage(data=[_view(item) for item in found.items], next_page=found.next_cursor)


async def work_stats(environment_id: EnvironmentId, services: Given, caller: Caller) -> WorkStats:
    """How the environment's queue stands."""
    found = await services.hosting.work.stats(caller, environment_id)
    return WorkStats(
        depth=found.depth,
        pending=found.pending,
        oldest_queued_at=_iso(found.oldest_queued_at),
        workers_polling=found.workers_polling,
    )


def _view(item: verbs.WorkItem, *, secret: str | None = None) -> Work:
    return Work.model_validate(
        {
            "id": item.id,
            "environment_id": item.environment_id,
            "data": SessionWork(id=item.session_id),
            "state": item.state,
            "metadata": item.metadata,
            "secret": secret,
            "created_at": iso(item.created_at),
            "acknowledged_at": _iso(item.acknowledged_at),
            "started_at": _iso(item.started_at),
            "latest_heartbeat_at": _iso(item.heartbeat_at),
            "stop_requested_at": _iso(item.stop_requested_at),
            "stopped_at": _iso(item.stopped_at),
        }
    )


def _iso(at: Millis | None) -> str | None:
    return None if at is None else iso(at)


def install(api: FastAPI) -> None:
    """Add the routes. Those with a name of their own come before those with an id."""
    here = "/v1/environments/{environment_id}/work"
    one = f"{here}/{{work_id}}"
    add(
        api,
        "GET",
        f"{here}/poll",
        poll_work,
        summary="Poll for work",
        reply=Work | None,
        response_class=Secret,
        refusals=(404,),
    )
    add(
        api,
        "GET",
        f"{here}/stats",
        work_stats,
        summary="Show how a queue stands",
        reply=WorkStats,
        refusals=(404,),
    )
    add(api, "GET", here, list_work, summary="List work", reply=WorkPage, refusals=(404,))
    add(api, "GET", one, get_work, summary="Show work", reply=Work, refusals=(404,))
    add(api, "POST", one, update_work, summary="Change work", reply=Work, refusals=(404,))
    add(
        api,
        "POST",
        f"{one}/ack",
        acknowledge_work,
        summary="Acknowledge work",
        reply=Work,
        refusals=(404, 409),
    )
    add(
        api,
        "POST",
        f"{one}/heartbeat",
        heartbeat_work,
        summary="Keep work",
        reply=Heartbeat,
        refusals=(404, 412),
    )
    add(api, "POST", f"{one}/stop", stop_work, summary="Stop work", reply=Work, refusals=(404, 409))
