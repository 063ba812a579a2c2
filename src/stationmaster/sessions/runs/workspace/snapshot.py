"""What is in a tree at one time, how two times differ, and how much it takes."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

from stationmaster.kernel.errors import StationmasterError
from stationmaster.sessions.runs.workspace.limits import SnapshotLimits, WalkLimits
from stationmaster.sessions.runs.workspace.tree import Entry, EntryType, Tree, Walk

ChangeKind = Literal["created", "modified", "deleted"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every entry of a tree by its path. `truncated` says that some are missing.

    `digests` are of small files, so that one written again with the same content can be told from
    a changed one.
    """

    entries: Mapping[str, Entry]
    digests: Mapping[str, bytes]
    truncated: bool

    @classmethod
    def take(
        cls, tree: Tree, limits: SnapshotLimits | None = None, *, digests: bool = True
    ) -> Self:
        """Look at the whole tree. `digests=False` is quicker: for the later of two snapshots."""
        limits = limits or SnapshotLimits()
        walk = Walk(tree, limits.walk)
        entries = {entry.path: entry for entry in walk}
        found: dict[str, bytes] = {}
        left = limits.digest_total_bytes if digests else 0
        for path, entry in entries.items():
            if entry.type == "file" and entry.size <= min(limits.digest_file_bytes, left):
                digest = digest_of(tree, path, entry.size)
                if digest is not None:
                    left -= entry.size
                    found[path] = digest
        return cls(entries, found, not walk.complete)


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between two snapshots. `size` is in bytes, of a deleted file its last one."""

    path: str
    kind: ChangeKind
    type: EntryType
    size: int
    mtime_ns: int


def changes(before: Snapshot, after: Snapshot, tree: Tree | None = None) -> list[Change]:
    """Tell what was created, modified and deleted between two snapshots, by path.

    Directories are not told. With `tree`, the one `after` was taken of, a small file that only
    looks modified is read and left out where its content is the same. An entry that a truncated
    snapshot may just not have reached is not claimed: not as deleted, and as created only where it
    was touched after everything that `before` saw.
    """
    since = max((entry.ctime_ns for entry in before.entries.values()), default=0)
    result: list[Change] = []
    for path in sorted(before.entries.keys() | after.entries.keys()):
        old, new = _shown(before, path), _shown(after, path)
        if new is not None and old is not None:
            if _modified(old, new, before, tree):
                result.append(_change("modified", new))
        elif new is not None:
            if path in before.entries or not before.truncated or new.ctime_ns > since:
                result.append(_change("created", new))
        elif old is not None and (path in after.entries or not after.truncated):
            result.append(_change("deleted", old))
    return result


def _shown(snapshot: Snapshot, path: str) -> Entry | None:
    entry = snapshot.entries.get(path)
    return None if entry is None or entry.type == "directory" else entry


def _change(kind: ChangeKind, entry: Entry) -> Change:
    return Change(entry.path, kind, entry.type, entry.size, entry.mtime_ns)


def _modified(old: Entry, new: Entry, before: Snapshot, tree: Tree | None) -> bool:
    if (old.type, old.size, old.executable) != (new.type, new.size, new.executable):
        return True
    if (old.inode, old.mtime_ns, old.ctime_ns) == (new.inode, new.mtime_ns, new.ctime_ns):
        return False
    known = before.digests.get(old.path)
    if known is None or tree is None or new.type != "file":
        return True
    return digest_of(tree, new.path, new.size) != known


def digest_of(tree: Tree, path: str, size: int) -> bytes | None:
    """Hash the first `size` bytes of a file; None where it cannot be read or has another size."""
    try:
        with tree.open_file(path) as file:
            content = file.read(size + 1)
    except (StationmasterError, OSError):
        return None  # gone, replaced or unreadable meanwhile: compared by its stat instead
    if len(content) != size:
        return None
    return hashlib.blake2b(content, digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class Usage:
    """What a tree takes. Where `complete` is False it takes more: treat that as over a quota."""

    bytes: int  # allocated on the disk, a file with several links counted once
    entries: int
    complete: bool


def usage(tree: Tree, limits: WalkLimits | None = None) -> Usage:
    """Measure a tree, for the quota watcher. What is deleted but still open is not seen."""
    walk = Walk(tree, limits or WalkLimits())
    total = entries = 0
    linked: set[tuple[int, int]] = set()
    for entry in walk:
        entries += 1
        if entry.type != "directory" and entry.links > 1:
            if (entry.device, entry.inode) in linked:
                continue
            linked.add((entry.device, entry.inode))
        total += entry.allocated
    return Usage(total, entries, walk.complete)
