"""Bringing files in, all or none: made where no agent can reach, then renamed into place."""

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Literal, Self

from stationmaster.kernel.errors import Conflict, Invalid, TooLarge
from stationmaster.sessions.runs.workspace.limits import UploadLimits
from stationmaster.sessions.runs.workspace.names import Parts, join
from stationmaster.sessions.runs.workspace.removal import remove_below
from stationmaster.sessions.runs.workspace.tree import Tree, typed_errors

Write = Callable[[int, memoryview], int]

_PREFIX = ".staging-"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# What a rename or an open says where the place has changed since it was looked at.
_CHANGING = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENOTEMPTY,
    errno.ELOOP,
}
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Staging:
    """Files on their way into a tree. A context manager; without `commit` nothing has happened.

    `noun` begins the codes of its errors: `archive_too_large`, `upload_duplicate` and so on.
    A disk without room is `Unavailable` with the code `disk_full`. Not for two threads at once.
    """

    def __init__(
        self,
        tree: Tree,
        limits: UploadLimits,
        noun: Literal["archive", "upload"],
        write: Write = os.write,
    ) -> None:
        """`write` is `os.write` but in tests of a failing disk."""
        self.entries = 0
        self.bytes = 0
        self._tree = tree
        self._limits = limits
        self._noun = noun
        self._write = write
        self._name = (_PREFIX + secrets.token_hex(8)).encode()
        self._pit = self._top = self._new = self._old = -1
        self._files: set[Parts] = set()
        self._directories: set[Parts] = {()}

    def __enter__(self) -> Self:
        """Make the place. Raises as `typed_errors`."""
        try:
            with typed_errors():
                self._pit = os.open(self._tree.staging, _DIRECTORY & ~os.O_NOFOLLOW)
                self._top = self._make(self._pit, self._name)
                self._new = self._make(self._top, b"new")
                self._old = self._make(self._top, b"old")
        except BaseException:
            self._clean()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove what was not committed."""
        self._clean()

    def add_directory(self, parts: Parts) -> None:
        """Add a directory and its parents. A directory may be added again."""
        self._check_depth(parts)
        for depth in range(1, len(parts) + 1):
            self._add_one_directory(parts[:depth])

    def add_file(
        self, parts: Parts, chunks: Iterable[bytes], *, executable: bool, readonly: bool = False
    ) -> None:
        """Add a file and its parents. Its mode is 0600, 0400 where `readonly`.

        With 0100 more where `executable`.

        Creation is exclusive: a file that is there already, in whatever spelling the file system
        takes for the same, is a duplicate and `Invalid`.
        """
        if not parts:
            raise self._invalid("path", "A file must have a name.")
        self.add_directory(parts[:-1])
        self._check_depth(parts)
        if parts in self._files or parts in self._directories:
            raise self._duplicate(parts)
        self._count(parts)
        with typed_errors(join(parts)):
            parent = self._open_new(parts[:-1])
            try:
                mode = (0o400 if readonly else 0o600) | (0o100 if executable else 0)
                fd = os.open(parts[-1], _CREATE, mode, dir_fd=parent)
            except FileExistsError:
                raise self._duplicate(parts) from None
            finally:
                os.close(parent)
        try:
            self._fill(fd, parts, chunks)
        finally:
            os.close(fd)
        self._files.add(parts)

    def commit(self) -> None:
        """Rename everything into the tree, over files of the same name. All or none.

        Directories are merged. Raises `Conflict` where a directory would replace something else
        or be replaced, where a link stands in the way, and where an agent at work changes the
        place meanwhile (`workspace_changing`). What failed is undone.
        """
        with typed_errors():
            try:
                _Merge(self._tree, self._new, self._old).run()
            except OSError as error:
                if error.errno not in _CHANGING:
                    raise
                raise Conflict(
                    "The workspace changed while files were brought in.", code="workspace_changing"
                ) from error

    # --- inside ---------------------------------------------------------------------------------

    def _add_one_directory(self, parts: Parts) -> None:
        if parts in self._directories:
            return
        if parts in self._files:
            raise self._duplicate(parts)
        self._count(parts)
        with typed_errors(join(parts)):
            parent = self._open_new(parts[:-1])
            try:
                os.close(self._make(parent, parts[-1]))
            except FileExistsError:
                raise self._duplicate(parts) from None
            finally:
                os.close(parent)
        self._directories.add(parts)

    def _fill(self, fd: int, parts: Parts, chunks: Iterable[bytes]) -> None:
        size = 0
        self._give(fd)
        for chunk in chunks:
            size += len(chunk)
            self.bytes += len(chunk)
            if size > self._limits.file_bytes:
                raise TooLarge(
                    f"'{join(parts)}' is larger than {self._limits.file_bytes} bytes.",
                    code=f"{self._noun}_too_large",
                )
            if self.bytes > self._limits.total_bytes:
                raise TooLarge(
                    f"The files are larger than {self._limits.total_bytes} bytes together.",
                    code=f"{self._noun}_too_large",
                )
            rest = memoryview(chunk)
            with typed_errors(join(parts)):
                while rest:
                    rest = rest[self._write(fd, rest) :]

    def _make(self, fd: int, name: bytes) -> int:
        os.mkdir(name, 0o700, dir_fd=fd)
        made = os.open(name, _DIRECTORY, dir_fd=fd)
        if fd != self._pit:
            self._give(made)
        return made

    def _give(self, fd: int) -> None:
        """A file belongs to whoever the workspace belongs to, where we are root and may say so."""
        if os.geteuid() == 0 and self._tree.owner != (0, 0):
            with typed_errors():
                os.fchown(fd, *self._tree.owner)

    def _open_new(self, parts: Parts) -> int:
        fd = os.dup(self._new)
        for part in parts:
            try:
                below = os.open(part, _DIRECTORY, dir_fd=fd)
            finally:
                os.close(fd)
            fd = below
        return fd

    def _count(self, parts: Parts) -> None:
        self.entries += 1
        if self.entries > self._limits.entries:
            raise TooLarge(
                f"There are more than {self._limits.entries} files and directories.",
                code=f"{self._noun}_too_many_entries",
            )

    def _check_depth(self, parts: Parts) -> None:
        if len(parts) > self._limits.depth:
            raise TooLarge(
                f"A path is nested deeper than {self._limits.depth}.", code=f"{self._noun}_too_deep"
            )

    def _duplicate(self, parts: Parts) -> Invalid:
        return self._invalid("duplicate", f"'{join(parts)}' is there twice.")

    def _invalid(self, what: str, message: str) -> Invalid:
        return Invalid(message, code=f"{self._noun}_{what}")

    def _clean(self) -> None:
        for fd in (self._old, self._new, self._top):
            if fd >= 0:
                os.close(fd)
        self._old = self._new = self._top = -1
        if self._pit >= 0:
            remove_below(self._pit, self._name)
            os.close(self._pit)
            self._pit = -1


class _Merge:
    """One commit: renames, and a journal to undo them."""

    def __init__(self, tree: Tree, new: int, old: int) -> None:
        self._tree = tree
        self._new = new
        self._old = old
        self._journal: list[tuple[Parts, bytes | None]] = []  # what was placed, what it replaced
        self._serial = 0

    def run(self) -> None:
        try:
            self._merge(self._new, self._tree.fd, ())
        except BaseException:
            self._undo()
            raise

    def _merge(self, source: int, target: int, parts: Parts) -> None:
        for name in sorted(os.fsencode(name) for name in os.listdir(source)):
            here = (*parts, name)
            incoming = stat.S_ISDIR(os.stat(name, dir_fd=source, follow_symlinks=False).st_mode)
            try:
                mode = os.stat(name, dir_fd=target, follow_symlinks=False).st_mode
            except FileNotFoundError:
                os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
                self._journal.append((here, None))
                continue
            if incoming != stat.S_ISDIR(mode):
                raise Conflict(
                    f"'{join(here)}' exists, and only one of the two is a directory.",
                    code="file_exists",
                )
            if incoming:
                self._descend(source, target, here)
            else:
                self._replace(source, target, here)

    def _descend(self, source: int, target: int, here: Parts) -> None:
        below = os.open(here[-1], _DIRECTORY, dir_fd=source)
        try:
            into = os.open(here[-1], _DIRECTORY, dir_fd=target)
            try:
                self._merge(below, into, here)
            finally:
                os.close(into)
        finally:
            os.close(below)

    def _replace(self, source: int, target: int, here: Parts) -> None:
        kept = self._next()
        os.rename(here[-1], kept, src_dir_fd=target, dst_dir_fd=self._old)
        try:
            os.rename(here[-1], here[-1], src_dir_fd=source, dst_dir_fd=target)
        except BaseException:
            os.rename(kept, here[-1], src_dir_fd=self._old, dst_dir_fd=target)
            raise
        self._journal.append((here, kept))

    def _undo(self) -> None:
        for here, kept in reversed(self._journal):
            # An agent at work may have taken any of it away; the rest is still put back.
            with suppress(OSError):
                parent = self._tree.open_directory(here[:-1])
                try:
                    os.rename(here[-1], self._next(), src_dir_fd=parent, dst_dir_fd=self._old)
                    if kept is not None:
                        os.rename(kept, here[-1], src_dir_fd=self._old, dst_dir_fd=parent)
                finally:
                    os.close(parent)

    def _next(self) -> bytes:
        self._serial += 1
        return str(self._serial).encode()
