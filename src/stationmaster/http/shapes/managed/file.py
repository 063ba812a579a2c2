"""Stored files, in Anthropic's shape."""

from typing import Annotated, Literal

from pydantic import Field

from stationmaster.http.shapes.base import Reply
from stationmaster.http.shapes.managed.terms import NextPage


class FileScope(Reply):
    """What made the file."""

    id: str
    type: Literal["session"] = "session"


class File(Reply):
    """A file, without its content."""

    id: str
    type: Literal["file"] = "file"
    filename: str
    mime_type: str
    size_bytes: int
    created_at: str
    expires_at: str | None
    downloadable: bool = True
    scope: FileScope | None


class FilePage(Reply):
    """Files, newest first."""

    data: list[File]
    next_page: NextPage
    has_more: bool
    first_id: Annotated[str | None, Field(description="For clients of older versions.")]
    last_id: str | None
