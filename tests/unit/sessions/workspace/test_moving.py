"""What was prepared is moved whole, and belongs to whom it was moved to."""

import os
from pathlib import Path

import pytest

from stationmaster.kernel.errors import Invalid
from stationmaster.sessions.runs.workspace import Baseline, Tree, changes, move_contents
from stationmaster.sessions.runs.workspace.snapshot import Snapshot

ANOTHER = (65_001, 65_001)


@pytest.fixture
def both(tmp_path: Path) -> tuple[Path, Path]:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "deep" / "er" / "a.bin").write_bytes(bytes(300_000))
    (source / "run.sh").write_text("#!/bin/sh\n")
    (source / "run.sh").chmod(0o700)
    (source / ".hidden").write_text("x")
    target.mkdir()
    return source, target


def below(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


def test_everything_is_moved_as_it_is(both: tuple[Path, Path]) -> None:
    source, target = both
    found, inode = below(source), (source / "run.sh").stat().st_ino
    with Tree.open(source) as one, Tree.open(target) as other:
        move_contents(one, other)
    assert below(source) == set()
    assert below(target) == found
    assert (target / "run.sh").stat().st_ino == inode
    assert (target / "run.sh").stat().st_mode & 0o100


def test_what_is_moved_before_it_is_looked_at_has_not_changed(
    both: tuple[Path, Path], tmp_path: Path
) -> None:
    source, target = both
    with Tree.open(source) as one, Tree.open(target) as other:
        move_contents(one, other)
        baseline = Baseline.capture(other, tmp_path / "baseline")
        assert changes(baseline.snapshot, Snapshot.take(other), other) == []


def test_a_name_that_is_taken_by_a_directory_is_a_typed_error(both: tuple[Path, Path]) -> None:
    source, target = both
    (target / "run.sh").mkdir()
    with Tree.open(source) as one, Tree.open(target) as other, pytest.raises(Invalid) as caught:
        move_contents(one, other)
    assert caught.value.error_code == "file_not_regular"
    assert (source / "run.sh").is_file()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_it_belongs_to_whom_the_other_workspace_belongs(both: tuple[Path, Path]) -> None:
    source, target = both
    os.chown(target, *ANOTHER)
    (source / "link").symlink_to("/etc/passwd")
    with Tree.open(source) as one, Tree.open(target) as other:
        move_contents(one, other)
    owners = {(path.lstat().st_uid, path.lstat().st_gid) for path in target.rglob("*")}
    assert owners == {ANOTHER}
    assert Path("/etc/passwd").stat().st_uid == 0
