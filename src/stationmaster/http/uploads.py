"""Tasks that come with files, as a form. Parts go to the disk as they arrive, not into memory."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.message import Message
from typing import BinaryIO

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from stationmaster.http.wire.exchange import RequestGoneError
from stationmaster.kernel.errors import Invalid, TooLarge
from stationmaster.sessions.runs.workspace import UploadedFile

MAX_TASK_BYTES = 1024 * 1024  # of the part that is JSON
MAX_FILES = 200  # each may hold a file descriptor until the task is made; an archive holds more
OVERHEAD_BYTES = 1024 * 1024  # of the form beside the files
PIECE_SECONDS = 30.0  # for the next piece of the body to arrive

FORM = "multipart/form-data"


@dataclass(frozen=True, slots=True)
class Form:
    """What a form holds: the task's JSON, an archive, single files."""

    task: bytes
    archive: BinaryIO | None
    files: list[UploadedFile]


class _Parser(MultiPartParser):
    spool_max_size = 64 * 1024  # bytes in memory for each part; beyond it a temporary file


@asynccontextmanager
async def received_form(request: Request, limit: int) -> AsyncIterator[Form]:
    """Receive a form with `limit` bytes of files; its files live until the block ends.

    Raises `Invalid`, `TooLarge`, and `RequestGoneError` where the client goes away.
    """
    async with received_parts(request, limit, files=MAX_FILES) as data:
        yield await _sort(data)


@asynccontextmanager
async def received_parts(request: Request, limit: int, *, files: int) -> AsyncIterator[FormData]:
    """Receive any form of at most `files` files and `limit` bytes; see `received_form`."""
    _check_charset(request)
    body = _body(request, limit + OVERHEAD_BYTES)
    parser = _Parser(
        request.headers,
        body,
        max_files=files,
        max_fields=10,
        max_part_size=MAX_TASK_BYTES,
    )
    try:
        data = await parser.parse()
    except MultiPartException as error:
        raise Invalid(f"The form cannot be read: {error.message}", code="invalid_form") from None
    finally:
        await body.aclose()
    try:
        yield data
    finally:
        await data.close()


def _check_charset(request: Request) -> None:
    # Python knows charsets that are no charsets; nobody needs another one here.
    head = Message()
    head["content-type"] = request.headers.get("content-type", "")
    if str(head.get_param("charset", "utf-8")).lower() not in {"utf-8", "utf8"}:
        raise Invalid("The form's charset must be UTF-8.", code="invalid_form")


async def _body(request: Request, limit: int) -> AsyncGenerator[bytes, None]:
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > limit:
        raise _too_large(limit)
    size = 0
    while True:
        try:
            async with asyncio.timeout(PIECE_SECONDS):
                message = await request.receive()
        except TimeoutError:
            raise Invalid("The form did not arrive in time.", code="invalid_form") from None
        if message["type"] != "http.request":
            raise RequestGoneError
        piece: bytes = message.get("body", b"")
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
        if piece:
            yield piece
        if not message.get("more_body"):
            return


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The form is larger than {limit} bytes.")


async def _sort(data: FormData) -> Form:
    task: bytes | None = None
    archive: BinaryIO | None = None
    files: list[UploadedFile] = []
    for name, part in data.multi_items():
        if name == "task" and task is None:
            task = await _text(part)
        elif name == "archive" and archive is None:
            archive = _file(part, name).file
        elif name == "files":
            file = _file(part, name)
            if not file.filename:
                raise Invalid("A file needs its path as filename.", code="invalid_form", param=name)
            files.append(UploadedFile(file.filename, file.file))
        else:
            reason = "is there twice" if name in {"task", "archive"} else "is not known"
            raise Invalid(f"The part {reason}.", code="invalid_form", param=name)
    if task is None:
        raise Invalid("The form needs a part named task.", code="invalid_form", param="task")
    return Form(task, archive, files)


async def _text(part: UploadFile | str) -> bytes:
    if isinstance(part, str):
        return part.encode("utf-8", "surrogatepass")
    text = await part.read(MAX_TASK_BYTES + 1)
    if len(text) > MAX_TASK_BYTES:
        raise TooLarge(f"The task is larger than {MAX_TASK_BYTES} bytes.", param="task")
    return text


def _file(part: UploadFile | str, name: str) -> UploadFile:
    if isinstance(part, str):
        raise Invalid("The part must be a file.", code="invalid_form", param=name)
    return part
