import os
from pathlib import Path

from stationmaster.sessions.runs.workspace import (
    Change,
    Snapshot,
    SnapshotLimits,
    Tree,
    WalkLimits,
    changes,
)


def told(found: list[Change]) -> list[tuple[str, str, str, int]]:
    return [(change.path, change.kind, change.type, change.size) for change in found]


def test_what_a_run_did(tree: Tree, path: Path, secret: Path) -> None:
    (path / "src").mkdir()
    for name in ("same", "edited", "deleted", "src/moved", "becomes-directory", "becomes-link"):
        (path / name).write_text(name)
    before = Snapshot.take(tree)
    (path / "edited").write_text("EDITED")
    (path / "deleted").unlink()
    (path / "src" / "moved").rename(path / "moved")
    (path / "becomes-directory").unlink()
    (path / "becomes-directory").mkdir()
    (path / "becomes-directory" / "new").write_text("1")
    (path / "becomes-link").unlink()
    (path / "becomes-link").symlink_to(secret)
    os.mkfifo(path / "pipe")
    (path / "empty-directory").mkdir()
    after = Snapshot.take(tree, digests=False)
    assert told(changes(before, after, tree)) == [
        ("becomes-directory", "deleted", "file", 17),
        ("becomes-directory/new", "created", "file", 1),
        ("becomes-link", "modified", "link", len(str(secret))),
        ("deleted", "deleted", "file", 7),
        ("edited", "modified", "file", 6),
        ("moved", "created", "file", 9),
        ("pipe", "created", "other", 0),
        ("src/moved", "deleted", "file", 9),
    ]


def test_an_edit_with_its_time_set_back_is_seen(tree: Tree, path: Path) -> None:
    (path / "a").write_text("one")
    before = Snapshot.take(tree)
    status = (path / "a").stat()
    (path / "a").write_text("two")
    os.utime(path / "a", ns=(status.st_atime_ns, status.st_mtime_ns))
    found = changes(before, Snapshot.take(tree, digests=False), tree)
    assert told(found) == [("a", "modified", "file", 3)]


def test_a_file_written_again_with_the_same_content_is_not_a_change(tree: Tree, path: Path) -> None:
    (path / "small").write_text("same")
    (path / "large").write_bytes(b"x" * 1000)
    limits = SnapshotLimits(digest_file_bytes=100)
    before = Snapshot.take(tree, limits)
    for name in ("small", "large"):
        content = (path / name).read_bytes()
        (path / name).unlink()
        (path / "holds the inode").touch()
        (path / name).write_bytes(content)
        (path / "holds the inode").unlink()
    found = changes(before, Snapshot.take(tree, limits), tree)
    assert told(found) == [("large", "modified", "file", 1000)]


def test_execution_rights_are_a_change(tree: Tree, path: Path) -> None:
    (path / "a").write_text("same")
    before = Snapshot.take(tree)
    (path / "a").chmod(0o700)
    assert [c.kind for c in changes(before, Snapshot.take(tree), tree)] == ["modified"]


def test_a_truncated_snapshot_claims_nothing_it_has_not_seen(tree: Tree, path: Path) -> None:
    for name in "abcd":
        (path / name).touch()
    small = SnapshotLimits(walk=WalkLimits(entries=2))
    whole, part = Snapshot.take(tree), Snapshot.take(tree, small)
    assert (whole.truncated, part.truncated) == (False, True)
    assert len(part.entries) == 2
    assert changes(whole, part, tree) == []
    unseen = set(whole.entries) - set(part.entries)
    newest = max(entry.ctime_ns for entry in part.entries.values())
    assert {c.path for c in changes(part, whole, tree)} == {
        name for name in unseen if whole.entries[name].ctime_ns > newest
    }


def test_digests_are_bounded_together(tree: Tree, path: Path) -> None:
    for name in "abc":
        (path / name).write_bytes(b"12345")
    assert set(Snapshot.take(tree, SnapshotLimits(digest_total_bytes=12)).digests) == {"a", "b"}
