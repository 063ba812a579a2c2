"""Background jobs: seen, tried again, thrown away."""

from typing import Annotated, Literal

from fastapi import FastAPI, Path, Query

from stationmaster.http.deps import Caller, Given
from stationmaster.http.routes.table import add
from stationmaster.http.routes.tasks import Limit
from stationmaster.http.shapes.job import BackgroundJob, BackgroundJobList
from stationmaster.jobs.inventory import Listed
from stationmaster.kernel.clock import iso
from stationmaster.kernel.paging import DEFAULT_LIMIT

JobId = Annotated[str, Path(max_length=64, description="The job's id, `job_…`.")]


async def list_jobs(
    services: Given,
    caller: Caller,
    *,
    state: Annotated[
        Literal["waiting", "running", "parked"] | None, Query(description="Only these.")
    ] = None,
    kind: Annotated[str | None, Query(max_length=64, description="Only of this kind.")] = None,
    limit: Limit = DEFAULT_LIMIT,
    after: Annotated[
        str | None, Query(max_length=96, description="`next` of the page before.")
    ] = None,
) -> BackgroundJobList:
    """The server's background jobs, the oldest first. What is done is not among them."""
    page = await services.jobs.list(caller, state=state, kind=kind, limit=limit, after=after)
    return BackgroundJobList(
        jobs=[_view(job) for job in page.items],
        has_more=page.next_cursor is not None,
        next=page.next_cursor,
    )


async def get_job(job_id: JobId, services: Given, caller: Caller) -> BackgroundJob:
    """Show a background job. One that is done is there no more."""
    return _view(await services.jobs.get(caller, job_id))


async def replay_job(job_id: JobId, services: Given, caller: Caller) -> BackgroundJob:
    """Let a parked job be tried again, as often as a new one. Workers are told of it at once."""
    return _view(await services.jobs.replay(caller, job_id))


async def discard_job(job_id: JobId, services: Given, caller: Caller) -> BackgroundJob:
    """Throw a parked job away, for good. The answer is what it was."""
    return _view(await services.jobs.discard(caller, job_id))


def _view(job: Listed) -> BackgroundJob:
    return BackgroundJob(
        id=job.id,
        kind=job.kind,
        state=job.state,
        attempts=job.attempts,
        created_at=iso(job.created_at),
        due_at=iso(job.due_at),
        instance_id=job.instance_id,
        error=job.error,
        payload=dict(job.payload),
    )


def install(api: FastAPI) -> None:
    """Put the routes into the app."""
    tag, here, one = "server", "/v1/jobs", "/v1/jobs/{job_id}"
    add(api, "GET", here, list_jobs, tag=tag, summary="List background jobs",
        reply=BackgroundJobList, errors=(422,))  # fmt: skip
    add(api, "GET", one, get_job, tag=tag, summary="Show a background job",
        reply=BackgroundJob, errors=(404,))  # fmt: skip
    add(api, "POST", f"{one}/replay", replay_job, tag=tag, summary="Try a parked job again",
        reply=BackgroundJob, errors=(404, 409))  # fmt: skip
    add(api, "DELETE", one, discard_job, tag=tag, summary="Throw a parked job away",
        reply=BackgroundJob, errors=(404, 409))  # fmt: skip
