"""Where the bytes of stored files are: a directory, on one disk or on a shared volume."""

import errno
import hashlib
import os
import secrets
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from stationmaster.kernel.errors import NotFound, TooLarge, Unavailable

CHUNK = 1024 * 1024  # bytes copied at once
STALE_SECONDS = 3600.0  # bytes without a row this old have lost their upload
_INCOMING = ".incoming"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Bytes:
    """What was put away, and what it hashes to."""

    size: int
    sha256: str


class Depot:
    """Every method blocks on the disk: call it in a thread.

        root/9f/file_…    named by id; the two characters are its last, which are random
        root/.incoming    on the way in

    A file appears under its name whole and durable, or not at all. Nothing is ever changed.
    Whoever is told of a file by `put` finds it after any crash.
    """

    def __init__(self, root: Path) -> None:
        """Touch nothing yet; `root` is made when first needed."""
        self._root = root.absolute()

    def put(self, file_id: str, source: BinaryIO, *, limit: int) -> Bytes:
        """Copy `source` from where it stands to its end.

        Raises `TooLarge` (`file_too_large`) past `limit` bytes, and `Unavailable` where the disk
        is full; then nothing is left.
        """
        target = self._place(file_id)
        with _typed():
            incoming = self._directory(_INCOMING) / secrets.token_hex(16)
            try:
                found = _copy(source, incoming, limit)
                self._directory(target.parent.name)
                incoming.rename(target)
                _sync_directory(target.parent)
            finally:
                incoming.unlink(missing_ok=True)
        return found

    def open(self, file_id: str) -> BinaryIO:
        """Open a file to read it. Raises `NotFound`."""
        try:
            return self._place(file_id).open("rb")
        except FileNotFoundError:
            raise NotFound("The file's content is gone.", code="file_not_found") from None

    def remove(self, file_id: str) -> None:
        """Delete a file. Idempotent."""
        with _typed():
            self._place(file_id).unlink(missing_ok=True)

    def old(self) -> Iterator[list[str]]:
        """The ids of files that no upload can still be about to register, some at a time."""
        for shard in self._shards():
            names = [entry.name for entry in os.scandir(shard) if _stale(entry)]
            if names:
                yield names

    def discard(self, file_ids: Collection[str]) -> int:
        """Delete these files, and what uploads that were cut left; return how many."""
        for file_id in file_ids:
            self.remove(file_id)
        gone = len(file_ids)
        with suppress(FileNotFoundError):
            for entry in os.scandir(self._root / _INCOMING):
                if _stale(entry):
                    Path(entry.path).unlink(missing_ok=True)
                    gone += 1
        return gone

    # --- inside ---------------------------------------------------------------------------------

    def _shards(self) -> list[Path]:
        try:
            return sorted(path for path in self._root.iterdir() if path.name != _INCOMING)
        except FileNotFoundError:
            return []

    def _place(self, file_id: str) -> Path:
        # Ids are checked for their form before they come here: no part of one is a path.
        return self._root / file_id[-2:] / file_id

    def _directory(self, name: str) -> Path:
        path = self._root / name
        if not path.is_dir():
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            _sync_directory(self._root)  # else its files would go with it
        return path


def _copy(source: BinaryIO, target: Path, limit: int) -> Bytes:
    size, digest = 0, hashlib.sha256()
    with os.fdopen(os.open(target, _CREATE, 0o600), "wb") as file:
        while piece := source.read(CHUNK):
            size += len(piece)
            if size > limit:
                raise TooLarge(f"The file is larger than {limit} bytes.", code="file_too_large")
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return Bytes(size, digest.hexdigest())


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _stale(entry: "os.DirEntry[str]") -> bool:
    """Whether it was last written long ago, by the disk's own time."""
    with suppress(FileNotFoundError):
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > STALE_SECONDS
    return False


@contextmanager
def _typed() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise Unavailable("The disk for files is full.", code="disk_full") from error
        raise Unavailable(
            "The directory for files cannot be used.", code="files_unavailable"
        ) from error
