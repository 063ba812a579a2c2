"""What a task made: listed, one by one, all as an archive, as a diff."""

from pathlib import PurePosixPath
from typing import Annotated

from fastapi import FastAPI, Path
from starlette.responses import Response

from stationmaster.http import task_view
from stationmaster.http.deps import Caller, Given
from stationmaster.http.downloads import Download, attachment, file_pieces, in_thread
from stationmaster.http.routes.table import add, content
from stationmaster.http.routes.tasks import TaskId
from stationmaster.http.shapes.task import ArtifactList
from stationmaster.kernel.errors import Conflict

BYTES = "application/octet-stream"
GZIP = "application/gzip"
DIFF = "text/x-diff"

FilePath = Annotated[str, Path(description="Relative to the task's directory.")]


async def list_artifacts(task_id: TaskId, services: Given, caller: Caller) -> ArtifactList:
    """The files that a task made, changed or deleted. Known when it has ended."""
    run = await services.runs.get(caller, task_id)
    return ArtifactList(
        task_id=run.id,
        status=task_view.status_of(run),
        artifacts=task_view.artifacts(run),
        artifacts_truncated=run.state.artifacts["truncated"],
        archive=task_view.links(run.id).archive,
    )


async def get_artifact(
    task_id: TaskId, path: FilePath, services: Given, caller: Caller
) -> Response:
    """One file of the task's directory, also one that it only found there."""
    _, place = await services.runs.place(caller, task_id)
    artifact = await in_thread(lambda: services.files.open(place, path))
    pieces = file_pieces(artifact.file, artifact.entry.size)
    return Download(
        pieces,
        close=artifact.file.close,
        media_type=BYTES,  # never what it claims to be: it is an agent's work
        headers={"content-disposition": attachment(PurePosixPath(path).name)},
        size=artifact.entry.size,
    )


async def get_archive(task_id: TaskId, services: Given, caller: Caller) -> Response:
    """All files of the task's directory as a tar.gz, made while it is sent."""
    _, place = await services.runs.place(caller, task_id)
    tree, pieces = await in_thread(lambda: services.files.archive(place, None))
    return Download(
        pieces,
        close=tree.close,
        media_type=GZIP,
        headers={"content-disposition": attachment(f"{task_id}.tar.gz")},
    )


async def get_diff(task_id: TaskId, services: Given, caller: Caller) -> Response:
    """What the task changed, as a unified diff; empty where it changed nothing."""
    run = await services.runs.get(caller, task_id)
    if not run.state.finished:
        raise Conflict("The task has not ended.", code="task_not_ended")
    file = await in_thread(lambda: services.files.diff(run.id))
    if file is None:
        return Response(b"", media_type=DIFF)
    return Download(
        file_pieces(file),
        close=file.close,
        media_type=DIFF,
        headers={"content-disposition": attachment(f"{task_id}.diff")},
    )


def install(api: FastAPI) -> None:
    """Add the routes."""
    tag, here = "artifacts", "/v1/tasks/{task_id}"
    binary = {"type": "string", "format": "binary"}
    add(
        api,
        "GET",
        f"{here}/artifacts",
        list_artifacts,
        tag=tag,
        summary="List what a task made",
        reply=ArtifactList,
        errors=(404,),
    )
    add(
        api,
        "GET",
        f"{here}/artifacts/{{path:path}}",
        get_artifact,
        tag=tag,
        summary="Download a file",
        errors=(404, 409),
        response_class=Response,
        responses={200: content(BYTES, "The file", binary)},
    )
    add(
        api,
        "GET",
        f"{here}/archive",
        get_archive,
        tag=tag,
        summary="Download all files",
        errors=(404, 413),
        response_class=Response,
        responses={200: content(GZIP, "The archive", binary)},
    )
    add(
        api,
        "GET",
        f"{here}/diff",
        get_diff,
        tag=tag,
        summary="Download what changed",
        errors=(404, 409),
        response_class=Response,
        responses={200: content(DIFF, "The diff", {"type": "string"})},
    )
