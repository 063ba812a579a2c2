"""A directory of the person's own, into which files from a task are written.

The paths come from a server and from an agent: each step down is opened by handle and never
through a link, and nothing is written below `.git`, where a file could become a command.
"""

import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Self

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 256 * 1024  # bytes


class Refused(Exception):
    """This file is not written. The message says why."""


class Destination:
    """An open directory. Close it, or use `make` or `existing` as a context manager."""

    def __init__(self, descriptor: int) -> None:
        self._root = descriptor

    @classmethod
    @contextmanager
    def make(cls, path: Path) -> Iterator[Self]:
        """Open a directory, made if need be."""
        path.mkdir(parents=True, exist_ok=True)
        with cls.existing(path) as found:
            yield found

    @classmethod
    @contextmanager
    def existing(cls, path: Path) -> Iterator[Self]:
        """Open a directory that is there. It may be named through a link."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield cls(descriptor)
        finally:
            os.close(descriptor)

    def digest(self, path: str) -> str | None:
        """The SHA-256 of a file; None where there is none. Raises `Refused` for anything else."""
        try:
            with self._parent(path, make=False) as (parent, name):
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                descriptor = os.open(name, flags, dir_fd=parent)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Refused(error.strerror or "it cannot be opened") from None
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Refused("there is something else than a file")
            return digest_of(file)

    def write(self, path: str, content: BinaryIO, *, executable: bool) -> None:
        """Write a file in one step, so that a cut leaves the old one. Raises `Refused`."""
        try:
            with self._parent(path, make=True) as (parent, name):
                self._replace(parent, name, content, executable=executable)
        except OSError as error:
            raise Refused(error.strerror or "it cannot be written") from None

    @staticmethod
    def _replace(parent: int, name: str, content: BinaryIO, *, executable: bool) -> None:
        with suppress(FileNotFoundError):
            present = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISREG(present.st_mode):
                raise Refused("there is something else than a file")
        part = f".stationmaster-{secrets.token_hex(6)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(part, flags, 0o777 if executable else 0o666, dir_fd=parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                while chunk := content.read(_CHUNK):
                    file.write(chunk)
            os.rename(part, name, src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException:
            with suppress(OSError):
                os.unlink(part, dir_fd=parent)
            raise

    def remove(self, path: str) -> None:
        """Remove a file; what is gone already is well. Raises `Refused`."""
        try:
            with self._parent(path, make=False) as (parent, name):
                os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            return
        except OSError as error:
            raise Refused(error.strerror or "it cannot be removed") from None

    @contextmanager
    def _parent(self, path: str, *, make: bool) -> Iterator[tuple[int, str]]:
        *directories, name = parts_of(path)
        current = os.dup(self._root)
        try:
            for part in directories:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(part, dir_fd=current)
                below = os.open(part, _DIRECTORY, dir_fd=current)
                os.close(current)
                current = below
            yield current, name
        finally:
            os.close(current)


def parts_of(path: str) -> list[str]:
    """The parts of a relative path. Raises `Refused` for one that leads elsewhere."""
    parts = path.split("/")
    if any(part in {"", ".", ".."} for part in parts) or "\0" in path:
        raise Refused("its path does not lead into the directory")
    if any(part.lower() == ".git" for part in parts):
        raise Refused("nothing is written into .git")
    return parts


def digest_of(file: BinaryIO) -> str:
    """The SHA-256 of what is left to read."""
    found = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        found.update(chunk)
    return found.hexdigest()
