"""Files given one by one."""

import errno
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from stationmaster.sessions.runs.workspace.limits import UploadLimits
from stationmaster.sessions.runs.workspace.names import split
from stationmaster.sessions.runs.workspace.staging import Staging, Write
from stationmaster.sessions.runs.workspace.tree import Tree, from_os

CHUNK = 64 * 1024  # bytes read at once
# What the way to a file says where the file is not there: also that a link or a file is in it.
_NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR}


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """A file from outside. `content` may be a stream, read to its end but not closed.

    Of `mode` only the owner's rights to write and to execute count.
    """

    path: str
    content: bytes | BinaryIO
    mode: int = 0o600


@dataclass(frozen=True, slots=True)
class Brought:
    """What was brought in."""

    entries: int  # files and the directories made for them
    bytes: int


def write_files(
    tree: Tree,
    files: Iterable[UploadedFile],
    limits: UploadLimits | None = None,
    *,
    write: Write = os.write,
) -> Brought:
    """Write `files` into the tree, all or none, over files of the same name.

    Raises `Invalid` (`upload_path`, `upload_duplicate`), `TooLarge` (`upload_too_large`,
    `upload_too_many_entries`, `upload_too_deep`), `Conflict` (`file_exists`) and `Unavailable`
    (`disk_full`).
    """
    with Staging(tree, limits or UploadLimits(), "upload", write) as staging:
        for file in files:
            parts = split(file.path, code="upload_path")
            chunks, mode = _chunks(file.content), file.mode
            staging.add_file(
                parts, chunks, executable=bool(mode & 0o100), readonly=not mode & 0o200
            )
        staging.commit()
        return Brought(staging.entries, staging.bytes)


def remove_file(tree: Tree, path: str) -> None:
    """Remove the file at `path`, a link as itself. What is not there, or no file by now, stays.

    Raises `Conflict` (`file_not_accessible`) and `Unavailable`.
    """
    parts = split(path)
    try:
        parent = tree.open_directory(parts[:-1])
        try:
            os.unlink(parts[-1], dir_fd=parent)
        finally:
            os.close(parent)
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise from_os(error, path) from error


def _chunks(content: bytes | BinaryIO) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    while chunk := content.read(CHUNK):
        yield chunk
