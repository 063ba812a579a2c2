"""Stored files, as OpenAI's clients know them. They are the same files in both shapes."""

import re
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, Request
from starlette.datastructures import FormData, UploadFile
from starlette.responses import Response

from stationmaster.files import StoredFile
from stationmaster.files.files import NewFile
from stationmaster.http.cursors import id_cursor
from stationmaster.http.deps import Caller, Given
from stationmaster.http.downloads import stored_file
from stationmaster.http.guard import media_type_of
from stationmaster.http.routes.openai.places import FILES
from stationmaster.http.routes.openai.table import add
from stationmaster.http.shapes.openai import OpenAIDeleted, OpenAIFile, OpenAIFilePage
from stationmaster.http.uploads import FORM, received_parts
from stationmaster.kernel.errors import Invalid

PURPOSES = ("assistants", "batch", "evals", "fine-tune", "user_data", "vision")

FileId = Annotated[str, Path(description="The file's id, `file_…`.")]
_NUMBER = re.compile(r"[0-9]{1,12}")
_SHOWN = {"upload": "user_data"}  # one that came in Anthropic's shape


async def upload_openai_file(request: Request, services: Given, caller: Caller) -> OpenAIFile:
    """Store a file: a form with a part `file` and its `purpose`."""
    caller.require("write:files")
    if media_type_of(request) != FORM:
        raise Invalid(f"The body must be {FORM}.", code="unsupported_media_type")
    async with received_parts(request, services.options.max_file_size, files=1) as form:
        return _view(await services.stored_files.upload(caller, _new_file(form)))


def _new_file(form: FormData) -> NewFile:
    parts: dict[str, Any] = {}
    for name, part in form.multi_items():
        if name not in {"file", "purpose", "expires_after[anchor]", "expires_after[seconds]"}:
            raise Invalid("The part is not known.", code="invalid_form", param=name)
        if name in parts or isinstance(part, str) != (name != "file"):
            raise Invalid("The part is there twice, or is no file.", param=name)
        parts[name] = part
    file: UploadFile | None = parts.get("file")
    if file is None:
        raise Invalid("The form needs a file named file.", code="invalid_form", param="file")
    if parts.get("purpose") not in PURPOSES:
        raise Invalid(f"purpose must be one of {', '.join(PURPOSES)}.", param="purpose")
    return NewFile(
        file.filename,
        file.content_type,
        file.file,
        purpose=parts["purpose"],
        lives_for=_life(parts),
    )


def _life(parts: dict[str, Any]) -> int | None:
    anchor = parts.get("expires_after[anchor]")
    seconds = parts.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at" or seconds is None or _NUMBER.fullmatch(seconds) is None:
        raise Invalid(
            "expires_after needs the anchor created_at and seconds.", param="expires_after"
        )
    return int(seconds)


async def list_openai_files(
    services: Given,
    caller: Caller,
    *,
    limit: Annotated[int, Query(ge=1, le=10_000, description="How many at most.")] = 1000,
    after: Annotated[str | None, Query(max_length=64, description="Only older ones.")] = None,
    purpose: Annotated[str | None, Query(max_length=32, description="Only of this one.")] = None,
    order: Annotated[str, Query(pattern="^desc$", description="Newest first.")] = "desc",
) -> OpenAIFilePage:
    """The project's files, newest first."""
    del order  # there is no other
    found = await services.stored_files.list(
        caller, limit=min(limit, 1000), after=id_cursor(after, "file", "after"), purpose=purpose
    )
    data = [_view(item) for item in found.items]
    return OpenAIFilePage(
        data=data,
        has_more=found.next_cursor is not None,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
    )


async def get_openai_file(file_id: FileId, services: Given, caller: Caller) -> OpenAIFile:
    """A file, without its content."""
    return _view(await services.stored_files.get(caller, file_id))


async def openai_file_content(file_id: FileId, services: Given, caller: Caller) -> Response:
    """A file's content."""
    return await stored_file(services.stored_files, caller, file_id)


async def delete_openai_file(file_id: FileId, services: Given, caller: Caller) -> OpenAIDeleted:
    """Delete a file for good."""
    await services.stored_files.delete(caller, file_id)
    return OpenAIDeleted(id=file_id)


def _view(file: StoredFile) -> OpenAIFile:
    return OpenAIFile(
        id=file.id,
        bytes=file.size,
        created_at=file.created_at // 1000,
        expires_at=None if file.expires_at is None else file.expires_at // 1000,
        filename=file.name,
        purpose=_SHOWN.get(file.purpose, file.purpose),
    )


_BODY = {"requestBody": {"required": True, "content": {FORM: {"schema": {"type": "object"}}}}}


def install(api: FastAPI) -> None:
    """Add the routes."""
    tag, one = "files", f"{FILES}/{{file_id}}"
    add(
        api,
        "POST",
        FILES,
        upload_openai_file,
        tag=tag,
        summary="Upload a file",
        reply=OpenAIFile,
        refusals=(),
        extra=_BODY,
    )
    add(api, "GET", FILES, list_openai_files, tag=tag, summary="List files", reply=OpenAIFilePage)
    add(api, "GET", one, get_openai_file, tag=tag, summary="Show a file", reply=OpenAIFile)
    add(
        api,
        "GET",
        f"{one}/content",
        openai_file_content,
        tag=tag,
        summary="Download a file",
        response_class=Response,
        content={"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    )
    add(
        api,
        "DELETE",
        one,
        delete_openai_file,
        tag=tag,
        summary="Delete a file",
        reply=OpenAIDeleted,
    )
