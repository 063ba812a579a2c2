"""Taking files out: one, or many as a tar.gz that is made while it is sent."""

import os
import stat
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from stationmaster.kernel.errors import Invalid, StationmasterError, TooLarge
from stationmaster.sessions.runs.workspace.limits import DownloadLimits
from stationmaster.sessions.runs.workspace.names import join, split, to_raw
from stationmaster.sessions.runs.workspace.tree import Entry, Tree, Walk, describe

CHUNK = 256 * 1024  # bytes read at once, and about what is held in memory
_BLOCK = 512  # bytes; everything in a tar is padded to it
_GZIP = 31  # zlib's window bits for a gzip wrapper


@dataclass(frozen=True, slots=True)
class Artifact:
    """An open regular file; close `file`. It may still change: send at most `entry.size` bytes."""

    entry: Entry
    file: BinaryIO


def open_artifact(tree: Tree, path: str) -> Artifact:
    """Open a file for download. Raises as `Tree.open_file`."""
    file = tree.open_file(path)
    return Artifact(describe(join(split(path)), os.fstat(file.fileno())), file)


def archive_of(
    tree: Tree, paths: Sequence[str] | None = None, limits: DownloadLimits | None = None
) -> Iterator[bytes]:
    """Return the chunks of a tar.gz of the whole tree, or of files and directories in it.

    Keep the tree open until the iterator is at its end or closed; memory stays at some chunks.
    Links and special files are left out, and what cannot be read or vanishes meanwhile. A file
    that shrinks meanwhile is filled with zeros, one that grows is cut, as tar does.

    Before the first chunk raises `NotFound`; `TooLarge` (`download_too_large`) where the limits do
    not let everything be sent: never a silently shortened archive.
    """
    limits = limits or DownloadLimits()
    chosen = _choose(tree, paths, limits)
    return _compress(tree, chosen)


def _choose(tree: Tree, paths: Sequence[str] | None, limits: DownloadLimits) -> list[Entry]:
    chosen: dict[str, Entry] = {}
    total = 0
    for start in [""] if paths is None else paths:
        for entry in _below(tree, start, limits):
            if entry.path in chosen or entry.type not in {"file", "directory"}:
                continue
            chosen[entry.path] = entry
            total += entry.size if entry.type == "file" else 0
            if total > limits.total_bytes or len(chosen) > limits.walk.entries:
                raise _too_large()
    return list(chosen.values())


def _below(tree: Tree, start: str, limits: DownloadLimits) -> Iterator[Entry]:
    entry = tree.stat(start)
    if entry.type not in {"file", "directory"}:
        raise Invalid(f"'{start}' is a link or special file.", code="file_not_regular")
    if entry.path:
        yield entry
    if entry.type == "directory":
        walk = Walk(tree, limits.walk, start)
        yield from walk
        if not walk.complete:
            raise _too_large()


def _too_large() -> TooLarge:
    return TooLarge(
        "There is too much in the workspace for one archive; name some of its paths.",
        code="download_too_large",
    )


def _compress(tree: Tree, entries: list[Entry]) -> Iterator[bytes]:
    packer = zlib.compressobj(level=6, wbits=_GZIP)
    for entry in entries:
        for block in _member(tree, entry):
            if packed := packer.compress(block):
                yield packed
    yield packer.compress(bytes(2 * _BLOCK)) + packer.flush()


def _member(tree: Tree, entry: Entry) -> Iterator[bytes]:
    if entry.type == "directory":
        yield _header(entry, entry.size)
        return
    try:
        artifact = open_artifact(tree, entry.path)
    except StationmasterError:
        return  # vanished, replaced by a link, or another user's: left out, as promised
    with artifact.file as file:
        # The size seen while choosing is what the limits let through.
        size = min(artifact.entry.size, entry.size)
        yield _header(artifact.entry, size)
        left = size
        while left:
            chunk = _read(file, min(CHUNK, left)) or bytes(min(CHUNK, left))
            left -= len(chunk)
            yield chunk
        yield bytes(-size % _BLOCK)


def _read(file: BinaryIO, size: int) -> bytes:
    try:
        return file.read(size)
    except OSError:
        return b""  # the header is sent already: the rest is zeros, like that of a shrunk file


def _header(entry: Entry, size: int) -> bytes:
    info = tarfile.TarInfo(to_raw(entry.path).decode("utf-8", "surrogateescape"))
    info.mtime = entry.mtime_ns // 10**9
    if entry.type == "directory":
        info.type, info.mode, info.size = tarfile.DIRTYPE, 0o755, 0
    else:
        info.mode = 0o755 if entry.mode & stat.S_IXUSR else 0o644
        info.size = size
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
