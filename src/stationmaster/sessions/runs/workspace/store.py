"""Where workspaces are: one directory per session, shared ones by owner and name."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog

from stationmaster.kernel.clock import Millis
from stationmaster.kernel.errors import Invalid, NotFound
from stationmaster.kernel.principal import Owner
from stationmaster.sessions.runs.workspace.removal import move_away, remove_below
from stationmaster.sessions.runs.workspace.tree import Tree, typed_errors

log = structlog.get_logger(__name__)

STALE_SECONDS = 3600.0  # a staging directory this old has lost its process; an upload takes minutes

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PRIVATE = 0o700


class Workspaces:
    """All workspaces of one server, or of several on a shared volume.

        root/sessions/<session id>
        root/shared/<project id>/<name>/<run id>
        root/.staging   files on their way in
        root/.trash     directories being deleted

    Everything is made with mode 0700. Safe to use from several threads and processes.
    """

    def __init__(self, root: Path) -> None:
        """Touch nothing yet; `root` is made when first needed."""
        self.root = root.absolute()

    def create(self, session_id: str) -> Path:
        """Make a session's own workspace, or find it where it exists. Idempotent."""
        return self._make("sessions", _check(session_id, "session_id"))

    def shared(self, owner: Owner, name: str, run_id: str) -> Path:
        """Make a run's directory in a shared workspace; its parent is the workspace. Idempotent.

        Owners do not share: the same name of another project is another directory. Raises
        `Invalid` (`workspace_name`) for a name that is not up to 64 letters, digits, `.`, `_`,
        `-`, beginning with a letter or digit.
        """
        return self._make(
            "shared",
            _check(owner.project_id, "project_id"),
            _check(name, "workspace"),
            _check(run_id, "run_id"),
        )

    def open_tree(self, path: Path) -> Tree:
        """Open a workspace, a shared one as a whole, or a run's directory in one.

        Raises `NotFound` where it is gone, `Invalid` where it is outside of the root or a link.
        """
        with self._open(self._parts(path)) as fd:
            return Tree(os.dup(fd), self._pit(".staging"))

    def remove(self, path: Path) -> bool:
        """Delete a workspace; True where nothing of it is left. Idempotent.

        It is moved away first, so its place is free at once. No link is followed. What cannot be
        deleted stays in `.trash` for `sweep`, and a warning says so. Raises `Conflict` where it
        cannot even be moved.
        """
        parts = self._parts(path)
        trash = self._pit(".trash")
        with typed_errors():
            pit = os.open(trash, _OPEN)
            try:
                with self._open(parts[:-1]) as parent:
                    name = move_away(parent, os.fsencode(parts[-1]), pit)
                return self._discard(pit, name)
            except (FileNotFoundError, NotFound):
                return True
            finally:
                os.close(pit)

    def names(self) -> list[str]:
        """The names of the sessions' own workspaces that are there."""
        with typed_errors():
            return sorted(path.name for path in self._make("sessions").iterdir())

    def sweep(self, now: Millis) -> int:
        """Delete what earlier processes left in trash and staging; return how many are gone."""
        gone = 0
        for place, age in ((".trash", None), (".staging", STALE_SECONDS)):
            with typed_errors():
                pit = os.open(self._pit(place), _OPEN)
                try:
                    for name in os.listdir(pit):  # noqa: PTH208 - of an open directory
                        if age is None or _age(pit, name, now) > age:
                            gone += self._discard(pit, os.fsencode(name))
                finally:
                    os.close(pit)
        return gone

    # --- inside ---------------------------------------------------------------------------------

    def _discard(self, pit: int, name: bytes) -> bool:
        left = remove_below(pit, name)
        if left:
            log.warning(
                "A workspace could not be deleted whole.", left=left, trash=os.fsdecode(name)
            )
        return left == 0

    def _parts(self, path: Path) -> tuple[str, ...]:
        """Split a path of ours below the root; at least a kind and a name."""
        try:
            parts = path.absolute().relative_to(self.root).parts
        except ValueError:
            parts = ()
        depth = len(parts)
        own = parts[:1] == ("sessions",) and depth == 2
        shared = parts[:1] == ("shared",) and depth in {3, 4}
        if not (own or shared) or not all(_NAME.fullmatch(part) for part in parts):
            raise Invalid("This is not a workspace.", code="workspace_outside")
        return parts

    def _pit(self, name: str) -> Path:
        self._make(name)
        return self.root / name

    def _make(self, *parts: str) -> Path:
        """Make directories below the root, each step by handle."""
        with typed_errors():
            self.root.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
            fd = os.open(self.root, _OPEN & ~os.O_NOFOLLOW)
            for part in parts:
                try:
                    fd, above = _enter(fd, part), fd
                    os.close(above)
                except BaseException:
                    os.close(fd)
                    raise
            os.close(fd)
        return self.root.joinpath(*parts)

    @contextmanager
    def _open(self, parts: tuple[str, ...]) -> Iterator[int]:
        with typed_errors():
            fd = os.open(self.root, _OPEN & ~os.O_NOFOLLOW)
        try:
            with typed_errors():
                for part in parts:
                    below = os.open(part, _OPEN, dir_fd=fd)
                    os.close(fd)
                    fd = below
            yield fd
        finally:
            os.close(fd)


def _enter(fd: int, part: str) -> int:
    """Open a directory, making it where it is missing."""
    try:
        return os.open(part, _OPEN, dir_fd=fd)
    except FileNotFoundError:
        pass
    with suppress(FileExistsError):  # another process may be faster
        os.mkdir(part, _PRIVATE, dir_fd=fd)
    return os.open(part, _OPEN, dir_fd=fd)


def _check(name: str, param: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise Invalid(
            f"{param} must be 1 to 64 letters, digits, '.', '_' or '-', and begin with a letter "
            "or digit.",
            code="workspace_name",
            param=param,
        )
    return name


def _age(pit: int, name: str, now: Millis) -> float:
    """Seconds since something was last made in a staging directory; 0 where it is gone."""
    try:
        status = os.stat(name, dir_fd=pit, follow_symlinks=False)
    except OSError:
        return 0.0
    return now / 1000 - status.st_mtime
