"""Files: uploaded, shown, listed, downloaded, deleted."""

import re
from typing import Annotated

from fastapi import FastAPI, Path, Query, Request
from starlette.datastructures import FormData, UploadFile
from starlette.responses import Response

from stationmaster.files import StoredFile
from stationmaster.files.files import NewFile
from stationmaster.http.cursors import id_cursor
from stationmaster.http.deps import Caller, Given
from stationmaster.http.downloads import stored_file
from stationmaster.http.guard import media_type_of
from stationmaster.http.routes.managed.query import PAGE_SIZE, PageCursor
from stationmaster.http.routes.managed.table import add
from stationmaster.http.shapes.managed.file import File, FilePage, FileScope
from stationmaster.http.shapes.managed.terms import Deleted
from stationmaster.http.uploads import FORM, received_parts
from stationmaster.kernel.clock import iso
from stationmaster.kernel.errors import Invalid

MAX_IDS = 100

FileId = Annotated[str, Path(description="The file's id, `file_…`.")]
FileLimit = Annotated[
    int | None, Query(ge=1, le=1000, description="How many at most; 20 unless given.")
]
Ids = Annotated[
    list[Annotated[str, Query(max_length=64)]] | None,
    Query(alias="ids[]", max_length=MAX_IDS, description="Only these files."),
]
ScopeId = Annotated[
    str | None, Query(max_length=64, description="Only files that this session has made.")
]
_NUMBER = re.compile(r"[0-9]{1,12}")


async def upload_file(request: Request, services: Given, caller: Caller) -> File:
    """Store a file: a form with a part `file`, and `expires_in_seconds` where it is to expire."""
    caller.require("write:files")
    if media_type_of(request) != FORM:
        raise Invalid(f"The body must be {FORM}.", code="unsupported_media_type")
    limit = services.options.max_file_size
    async with received_parts(request, limit, files=1) as form:
        new = _new_file(form)
        return _view(await services.stored_files.upload(caller, new))


def _new_file(form: FormData) -> NewFile:
    file: UploadFile | None = None
    lives_for: int | None = None
    for name, part in form.multi_items():
        if name == "file" and file is None and isinstance(part, UploadFile):
            file = part
        elif name == "expires_in_seconds" and lives_for is None and isinstance(part, str):
            lives_for = _seconds(part)
        else:
            raise Invalid(
                "A part is not known, is there twice, or is no file.",
                code="invalid_form",
                param=name,
            )
    if file is None:
        raise Invalid("The form needs a file named file.", code="invalid_form", param="file")
    return NewFile(file.filename, file.content_type, file.file, lives_for=lives_for)


def _seconds(text: str) -> int:
    if _NUMBER.fullmatch(text) is None:
        raise Invalid("expires_in_seconds must be a number.", param="expires_in_seconds")
    return int(text)


async def list_files(
    services: Given,
    caller: Caller,
    *,
    limit: FileLimit = None,
    page: PageCursor = None,
    ids: Ids = None,
    scope_id: ScopeId = None,
) -> FilePage:
    """The project's files, newest first. With `ids`, those of them that there are."""
    after = id_cursor(page, "file")
    wanted = None if ids is None else sorted(set(ids))
    if wanted is not None and (limit is not None or page is not None):
        raise Invalid("ids goes without limit and page.", param="ids")
    size = limit or PAGE_SIZE if wanted is None else MAX_IDS
    found = await services.stored_files.list(
        caller, limit=size, after=after, ids=wanted, scope_id=scope_id
    )
    data = [_view(item) for item in found.items]
    return FilePage(
        data=data,
        next_page=found.next_cursor,
        has_more=found.next_cursor is not None,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
    )


async def get_file(file_id: FileId, services: Given, caller: Caller) -> File:
    """A file, without its content."""
    return _view(await services.stored_files.get(caller, file_id))


async def download_file(file_id: FileId, services: Given, caller: Caller) -> Response:
    """A file's content."""
    return await stored_file(services.stored_files, caller, file_id)


async def delete_file(file_id: FileId, services: Given, caller: Caller) -> Deleted:
    """Delete a file for good. Sessions keep the copies that they have."""
    await services.stored_files.delete(caller, file_id)
    return Deleted(id=file_id, type="file_deleted")


def _view(file: StoredFile) -> File:
    return File(
        id=file.id,
        filename=file.name,
        mime_type=file.media_type,
        size_bytes=file.size,
        created_at=iso(file.created_at),
        expires_at=None if file.expires_at is None else iso(file.expires_at),
        scope=None if file.scope_id is None else FileScope(id=file.scope_id),
    )


_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            FORM: {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "additionalProperties": False,
                    "properties": {
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": "The file.",
                        },
                        "expires_in_seconds": {
                            "type": "integer",
                            "description": "After how long it expires: an hour to ninety days.",
                        },
                    },
                }
            }
        },
    },
}


def install(api: FastAPI) -> None:
    """Add the routes."""
    here, tag = "/v1/files", "files"
    one = f"{here}/{{file_id}}"
    add(
        api,
        "POST",
        here,
        upload_file,
        tag=tag,
        summary="Upload a file",
        reply=File,
        extra=_BODY,
    )
    add(api, "GET", here, list_files, tag=tag, summary="List files", reply=FilePage)
    add(
        api,
        "GET",
        one,
        get_file,
        tag=tag,
        summary="Show a file",
        reply=File,
        refusals=(404,),
    )
    add(
        api,
        "GET",
        f"{one}/content",
        download_file,
        tag=tag,
        summary="Download a file",
        refusals=(404,),
        response_class=Response,
        responses={
            200: {
                "description": "The content",
                "content": {
                    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
                },
            }
        },
    )
    add(
        api,
        "DELETE",
        one,
        delete_file,
        tag=tag,
        summary="Delete a file",
        reply=Deleted,
        refusals=(404,),
    )
