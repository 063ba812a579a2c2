"""A directory reached by handle. Nothing here follows a link or leaves the directory.

Every path is walked part by part from an open directory, refusing links at each step, so what was
checked is what is used: a link swapped in between leads to an error, never elsewhere.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, Self

from stationmaster.kernel.errors import Conflict, Invalid, NotFound, StationmasterError, Unavailable
from stationmaster.sessions.runs.workspace.limits import WalkLimits
from stationmaster.sessions.runs.workspace.names import Parts, join, split

EntryType = Literal["file", "directory", "link", "other"]

_DIRECTORY = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO for reading would wait for a writer that never comes.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_MOUNT_POINTS = ("project", "workspace")  # names that agents and people give to the root

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_REGULAR = {errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO, errno.ENODEV}


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing in a tree, as it was when looked at. `path` is relative text, see `names`."""

    path: str
    type: EntryType
    size: int  # bytes, apparent
    mode: int  # permission bits
    mtime_ns: int
    ctime_ns: int  # unlike the modification time, an agent cannot set it back
    inode: int
    device: int
    links: int
    uid: int
    allocated: int  # bytes on the disk

    @property
    def executable(self) -> bool:
        """Whether its owner may run it."""
        return bool(self.mode & stat.S_IXUSR)


def describe(path: str, status: os.stat_result) -> Entry:
    """Make an entry of what `stat` said."""
    return Entry(
        path=path,
        type=_type(status.st_mode),
        size=status.st_size,
        mode=stat.S_IMODE(status.st_mode),
        mtime_ns=status.st_mtime_ns,
        ctime_ns=status.st_ctime_ns,
        inode=status.st_ino,
        device=status.st_dev,
        links=status.st_nlink,
        uid=status.st_uid,
        allocated=status.st_blocks * 512,  # the unit of st_blocks is fixed
    )


def _type(mode: int) -> EntryType:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    return "link" if stat.S_ISLNK(mode) else "other"


def from_os(error: OSError, path: str = "") -> StationmasterError:
    """Tell an operating system's error by meaning."""
    what = f"'{path}'" if path else "The workspace"
    number = error.errno
    if number in _FULL:
        return Unavailable("The disk of the workspaces is full.", code="disk_full", retry_after=60)
    if number == errno.ENOENT:
        return NotFound(f"{what} does not exist.", code="file_not_found")
    if number in _NOT_REGULAR:
        return Invalid(f"{what} is a link or not what is asked for.", code="file_not_regular")
    if number == errno.ENAMETOOLONG:
        return Invalid("The path is too long.", code="path_invalid")
    if number in {errno.EACCES, errno.EPERM}:
        return Conflict(f"{what} does not allow this.", code="file_not_accessible")
    return Unavailable("The workspace cannot be used now.", code="workspace_unavailable")


@contextmanager
def typed_errors(path: str = "") -> Iterator[None]:
    """Turn `OSError` into the error of its meaning."""
    try:
        yield
    except OSError as error:
        raise from_os(error, path) from error


class Tree:
    """An open directory. Close it, or use it as a context manager.

    Safe to use from several threads until it is closed. `staging` is a directory on the same file
    system that no agent can reach; what is brought in is made there and renamed.
    """

    def __init__(self, fd: int, staging: Path) -> None:
        """Own `fd`, an open directory, from now on."""
        self._fd = fd
        self.staging = staging
        status = os.fstat(fd)
        self.owner = (status.st_uid, status.st_gid)

    @classmethod
    def open(cls, path: Path, staging: Path | None = None) -> Self:
        """Open the directory at `path`, a path of ours. Staging is beside it unless told."""
        with typed_errors():
            return cls(os.open(path, os.O_RDONLY | _DIRECTORY), staging or path.parent)

    @property
    def fd(self) -> int:
        """The open directory, for as long as the tree is."""
        return self._fd

    def close(self) -> None:
        """Close it. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        """Use it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def open_directory(self, parts: Parts, flags: int = os.O_PATH) -> int:
        """Open a directory below, refusing links; the caller closes it. Raises `OSError`."""
        fd = os.open(".", (flags if not parts else os.O_PATH) | _DIRECTORY, dir_fd=self._fd)
        for depth, part in enumerate(parts, 1):
            try:
                wanted = flags if depth == len(parts) else os.O_PATH
                below = os.open(part, wanted | _DIRECTORY, dir_fd=fd)
            finally:
                os.close(fd)
            fd = below
        return fd

    def stat(self, path: str) -> Entry:
        """Look at what is at `path`, a link as itself. Raises `NotFound` or `Invalid`."""
        parts = split(path)
        with typed_errors(path):
            if not parts:
                return describe("", os.fstat(self._fd))
            parent = self.open_directory(parts[:-1])
            try:
                status = os.stat(parts[-1], dir_fd=parent, follow_symlinks=False)
            finally:
                os.close(parent)
        return describe(join(parts), status)

    def open_file(self, path: str) -> BinaryIO:
        """Open a regular file for reading. Never waits.

        Raises `NotFound`; `Invalid` (`file_not_regular`) for a directory, link, FIFO, socket or
        device, at the end or on the way; `Conflict` (`file_not_accessible`) where it cannot be
        read, and for a hard link to a file of another user than the workspace's.
        """
        parts = split(path)
        if not parts:
            raise Invalid("The path names no file.", code="file_not_regular", param="path")
        with typed_errors(path):
            parent = self.open_directory(parts[:-1])
            try:
                fd = os.open(parts[-1], _READ, dir_fd=parent)
            finally:
                os.close(parent)
        try:
            self._check_readable(path, os.fstat(fd))
            return os.fdopen(fd, "rb")
        except BaseException:
            os.close(fd)
            raise

    def _check_readable(self, path: str, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise from_os(OSError(errno.EISDIR, ""), path)
        # An agent under its own user id on the same file system may be able to link a file that it
        # cannot read (where fs.protected_hardlinks is off) and have the server read it. In its own
        # mount namespace it cannot. Links among its own files, as Git makes them, are fine.
        if status.st_nlink > 1 and status.st_uid != self.owner[0]:
            raise Conflict(
                f"'{path}' is a hard link to another user's file.", code="file_not_accessible"
            )

    def working_directory(self, text: str = "/project") -> str:
        """Check where a caller wants to work; return it relative to the tree, "" for its root.

        `/project`, `/workspace`, either with a sub-path, and a relative path are accepted. Raises
        `Invalid` with the code `working_directory_outside` or `working_directory_missing`.
        """
        param, outside = "working_directory", "working_directory_outside"
        head, _, rest = text.removeprefix("/").partition("/")
        if text.startswith("/") and head not in _MOUNT_POINTS:
            raise Invalid(
                "The working directory must be /project, /workspace, or inside.",
                code=outside,
                param=param,
            )
        parts = split(rest.lstrip("/") if text.startswith("/") else text, code=outside, param=param)
        try:
            os.close(self.open_directory(parts))
        except FileNotFoundError:
            raise Invalid(
                "The working directory does not exist in the workspace.",
                code="working_directory_missing",
                param=param,
            ) from None
        except NotADirectoryError:
            raise Invalid(
                "The working directory is no directory, or is reached through a link.",
                code=outside,
                param=param,
            ) from None
        except OSError as error:
            raise from_os(error, text) from error
        return join(parts)


_Level = tuple[int, Parts, Iterator[bytes]]  # an open directory, its path, the names to come


def _close_all(levels: list[_Level]) -> None:
    for level in levels:
        os.close(level[0])


class Walk:
    """Everything below a directory, parents before children, names in order of their bytes.

    Iterate once. What vanishes meanwhile is left out. `complete` is False afterwards where a limit
    was reached or a directory could not be read. Holds one descriptor for each level, at most
    `limits.depth`, while iterated; closing the iterator closes them.
    """

    def __init__(self, tree: Tree, limits: WalkLimits, start: str = "") -> None:
        """Walk `tree` from the directory `start`."""
        self.complete = True
        self._tree = tree
        self._limits = limits
        self._start = split(start)
        self._left = limits.entries

    def __iter__(self) -> Iterator[Entry]:
        """Yield the entries. Raises only where `start` itself cannot be opened."""
        with typed_errors(join(self._start)):
            fd = self._tree.open_directory(self._start, os.O_RDONLY)
        levels: list[_Level] = [(fd, self._start, iter(self._names(fd)))]
        with ExitStack() as stack:
            stack.callback(_close_all, levels)
            while levels:
                fd, parts, names = levels[-1]
                name = next(names, None)
                if name is None:
                    os.close(levels.pop()[0])
                    continue
                try:
                    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                except OSError:
                    continue
                here = (*parts, name)
                yield describe(join(here), status)
                if stat.S_ISDIR(status.st_mode):
                    below = self._open(fd, name, len(levels))
                    if below is not None:
                        levels.append((below, here, iter(self._names(below))))

    def _open(self, fd: int, name: bytes, depth: int) -> int | None:
        if depth >= self._limits.depth:
            self.complete = False
            return None
        try:
            return os.open(name, os.O_RDONLY | _DIRECTORY, dir_fd=fd)
        except FileNotFoundError:
            return None
        except OSError:
            self.complete = False
            return None

    def _names(self, fd: int) -> list[bytes]:
        """Names in an open directory; no more of them are kept than may still be yielded."""
        names: list[bytes] = []
        with suppress(FileNotFoundError), os.scandir(fd) as entries:
            for entry in entries:
                if self._left <= 0:
                    self.complete = False
                    break
                self._left -= 1
                names.append(os.fsencode(entry.name))
        names.sort()
        return names
