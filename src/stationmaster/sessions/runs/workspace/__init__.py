"""Workspaces: the directories agents work in, and how files get in and out of them safely.

Everything here is synchronous and bounded: call it in a thread. Paths are relative text
(`names`), and are followed by handle (`tree`); nothing follows a link or leaves the workspace.
"""

from stationmaster.sessions.runs.workspace.archive import extract_archive
from stationmaster.sessions.runs.workspace.diff import Baseline, unified_diff
from stationmaster.sessions.runs.workspace.diff import discard as discard_baseline
from stationmaster.sessions.runs.workspace.download import Artifact, archive_of, open_artifact
from stationmaster.sessions.runs.workspace.limits import (
    DiffLimits,
    DownloadLimits,
    SnapshotLimits,
    UploadLimits,
    WalkLimits,
)
from stationmaster.sessions.runs.workspace.moving import move_contents
from stationmaster.sessions.runs.workspace.snapshot import (
    Change,
    Snapshot,
    Usage,
    changes,
    usage,
)
from stationmaster.sessions.runs.workspace.store import Workspaces
from stationmaster.sessions.runs.workspace.tree import Entry, Tree, Walk
from stationmaster.sessions.runs.workspace.upload import (
    Brought,
    UploadedFile,
    remove_file,
    write_files,
)

__all__ = [
    "Artifact",
    "Baseline",
    "Brought",
    "Change",
    "DiffLimits",
    "DownloadLimits",
    "Entry",
    "Snapshot",
    "SnapshotLimits",
    "Tree",
    "UploadLimits",
    "UploadedFile",
    "Usage",
    "Walk",
    "WalkLimits",
    "Workspaces",
    "archive_of",
    "changes",
    "discard_baseline",
    "extract_archive",
    "move_contents",
    "open_artifact",
    "remove_file",
    "unified_diff",
    "usage",
    "write_files",
]
