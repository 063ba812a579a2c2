"""A run's files: where they are, how they come in, what the run made of them, how they go out."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from stationmaster.kernel.clock import Millis, iso
from stationmaster.kernel.errors import NotFound, TooLarge, Unavailable
from stationmaster.kernel.principal import Owner
from stationmaster.sessions.runs.options import RunOptions
from stationmaster.sessions.runs.workspace import (
    Artifact,
    Baseline,
    Change,
    Snapshot,
    Tree,
    UploadedFile,
    UploadLimits,
    Workspaces,
    archive_of,
    changes,
    discard_baseline,
    extract_archive,
    move_contents,
    open_artifact,
    remove_file,
    unified_diff,
    usage,
    write_files,
)

MAX_LISTED = 1000  # artifacts named on the run; all of them are in the archive
DIFF_NAME = "changes.diff"

# What an agent could make in its workspace is copied whole: those were its limits.
_COPY = UploadLimits(
    total_bytes=16 * 1024**3, file_bytes=16 * 1024**3, entries=100_000, depth=100, ratio=10**6
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run works.

    `workspace` is what the agent sees, `scope` the part whose changes are the run's artifacts, and
    `directory` where it starts. They differ in a shared workspace and with a working directory.
    """

    workspace: Path
    scope: Path
    directory: Path

    @property
    def plain(self) -> bool:
        """Whether all three are the same."""
        return self.workspace == self.scope == self.directory


@dataclass(frozen=True, slots=True)
class Upload:
    """Files to bring in before the run: an archive first, then single ones over it."""

    archive: BinaryIO | None = None
    files: Sequence[UploadedFile] = field(default_factory=tuple)


class RunFiles:
    """Every method blocks on the disk: call it in a thread."""

    def __init__(self, workspaces: Workspaces, state: Path, limits: UploadLimits) -> None:
        """`state` is a directory of the server's own for homes, baselines and diffs."""
        self._workspaces = workspaces
        self._state = state
        self._limits = limits

    # --- before the run is accepted -----------------------------------------------------------

    def preparation(
        self, owner: Owner, options: RunOptions, upload: Upload
    ) -> Callable[[str, str], Place]:
        """What makes the workspace of a run, given its session's and its own id.

        It raises `Invalid`, `TooLarge` and `Unavailable`; then nothing of it is left.
        """
        return partial(self._prepare, owner, options, upload)

    def _prepare(
        self, owner: Owner, options: RunOptions, upload: Upload, session_id: str, run_id: str
    ) -> Place:
        if options.workspace is None:
            scope = workspace = self._workspaces.create(session_id)
        else:
            scope = self._workspaces.shared(owner, options.workspace, run_id)
            workspace = scope.parent
        directory = options.working_directory or "/project"
        start = self._fill(scope, upload, self._limits, directory)
        return Place(workspace, scope, scope / start)

    def _fill(self, scope: Path, upload: Upload, limits: UploadLimits, directory: str) -> str:
        """Bring files in; return where the agent starts. Nothing is left where it raises."""
        try:
            with self._workspaces.open_tree(scope) as tree:
                if upload.archive is not None:
                    extract_archive(tree, upload.archive, limits)
                if upload.files:
                    write_files(tree, upload.files, limits)
                return tree.working_directory(directory)
        except BaseException:
            self._workspaces.remove(scope)
            raise

    # --- a session's, before it begins and after it is deleted --------------------------------

    def prepare(self, session_id: str, upload: Upload) -> Place:
        """Make the workspace of a session, with files in it. Raises as `preparation` says."""
        scope = self._workspaces.create(session_id)
        self._fill(scope, upload, self._limits, "/project")
        return Place(scope, scope, scope)

    def bring(self, place: Place, files: Sequence[UploadedFile], size: int, quota: int) -> None:
        """Write files of `size` bytes together into a session's workspace, all or none.

        They go over files of the same name. Raises `TooLarge` where it would hold more than
        `quota` bytes, `Conflict` where something else is in the way, `NotFound`, `Unavailable`.
        """
        with self._workspaces.open_tree(place.scope) as tree:
            used = usage(tree)
            if not used.complete or used.bytes + size > quota:
                raise TooLarge(
                    f"The workspace may hold {quota} bytes in all.", code="workspace_too_large"
                )
            write_files(tree, files, UploadLimits(total_bytes=quota, file_bytes=quota))

    def take_out(self, place: Place, path: str) -> None:
        """Remove a file from a session's workspace, where it still is one."""
        with self._workspaces.open_tree(place.scope) as tree:
            remove_file(tree, path)

    def copy(self, place: Place, session_id: str) -> Place:
        """Make the workspace of a session from another's, as it is now. Links are left out."""
        scope = self._workspaces.create(session_id)
        try:
            with tempfile.TemporaryFile(dir=self._state) as file:
                tree, chunks = self.archive(place, None)
                try:
                    file.writelines(chunks)
                finally:
                    tree.close()
                self._fill(scope, Upload(archive=file), _COPY, "/project")
        except BaseException:
            self._workspaces.remove(scope)
            raise
        return Place(scope, scope, scope)

    def clear(self, place: Place) -> None:
        """Remove a session's workspace and its agent's home. Idempotent."""
        self._workspaces.remove(place.scope)
        shutil.rmtree(self._state / "homes" / place.workspace.name, ignore_errors=True)

    def discard(self, place: Place) -> None:
        """Remove what a preparation made, where the run is refused after all."""
        self._workspaces.remove(place.scope)

    # --- around the run -----------------------------------------------------------------------

    def home(self, session_id: str) -> Path:
        """The private home of the session's agent, made if need be."""
        home = self._state / "homes" / session_id
        try:
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Unavailable(
                f"The agent's home cannot be made: {error.strerror}.", code="disk_full"
            ) from error
        return home

    def move(self, place: Place, to: Place) -> None:
        """Move what was prepared for a run to where its agent waits; nothing is left at `place`."""
        with (
            self._workspaces.open_tree(place.scope) as source,
            self._workspaces.open_tree(to.scope) as target,
        ):
            move_contents(source, target)
        with suppress(OSError):  # empty by now
            place.scope.rmdir()

    def before(self, run_id: str, place: Place) -> None:
        """Remember the files as they are."""
        baseline = self._of(run_id) / "baseline"
        discard_baseline(baseline)  # of an attempt that a crash has cut
        with self._workspaces.open_tree(place.scope) as tree:
            Baseline.capture(tree, baseline)

    def after(self, run_id: str, place: Place) -> dict[str, Any]:
        """List what has changed since `before`, and keep the diff."""
        of_run = self._of(run_id)
        try:
            baseline = Baseline.open(of_run / "baseline")
        except NotFound:  # the run ended before anything could happen
            return {"items": [], "truncated": False}
        with self._workspaces.open_tree(place.scope) as tree:
            now = Snapshot.take(tree)
            found = changes(baseline.snapshot, now, tree)
            if found:
                self._keep_diff(of_run, unified_diff(baseline, tree))
        discard_baseline(of_run / "baseline")
        return {
            "items": [_item(change) for change in found[:MAX_LISTED]],
            "truncated": len(found) > MAX_LISTED or now.truncated,
        }

    @staticmethod
    def _keep_diff(of_run: Path, chunks: Iterator[bytes]) -> None:
        part = of_run / (DIFF_NAME + ".part")
        try:
            with part.open("wb") as file:
                file.writelines(chunks)
            part.replace(of_run / DIFF_NAME)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise Unavailable("There is no room to keep the diff.", code="disk_full") from error

    def _of(self, run_id: str) -> Path:
        path = self._state / "runs" / run_id
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    # --- going out ----------------------------------------------------------------------------

    def open(self, place: Place, path: str) -> Artifact:
        """Open one file. Raises `NotFound`, `Invalid`."""
        with self._workspaces.open_tree(place.scope) as tree:
            return open_artifact(tree, path)

    def archive(self, place: Place, paths: Sequence[str] | None) -> tuple[Tree, Iterator[bytes]]:
        """A tar.gz of the files. Close the tree after the last chunk, or instead of it."""
        tree = self._workspaces.open_tree(place.scope)
        try:
            return tree, archive_of(tree, paths)
        except BaseException:
            tree.close()
            raise

    def diff(self, run_id: str) -> BinaryIO | None:
        """Open the kept diff; None where the run changed nothing or has not ended."""
        try:
            return (self._state / "runs" / run_id / DIFF_NAME).open("rb")
        except FileNotFoundError:
            return None

    def prepared(self) -> list[str]:
        """The ids of the sessions of which there is a workspace under their own name."""
        return [name for name in self._workspaces.names() if name.startswith("sesn_")]

    def strip(self, session_id: str) -> bool:
        """Remove what lies under a session's own name; True where nothing of it is left."""
        return self._workspaces.remove(self._workspaces.root / "sessions" / session_id)

    def sweep(self, now: Millis) -> int:
        """Delete what interrupted uploads and removals have left; return how many are gone."""
        return self._workspaces.sweep(now)

    def free_bytes(self) -> int:
        """What the disk of the workspaces still holds."""
        path = self._workspaces.root
        while not path.exists():
            path = path.parent
        status = os.statvfs(path)
        return status.f_bavail * status.f_frsize


def _item(change: Change) -> dict[str, Any]:
    return {
        "path": change.path,
        "kind": change.kind,
        "type": change.type,
        "size": change.size,
        "modified_at": iso(change.mtime_ns // 1_000_000),
    }
