import os
import stat
from pathlib import Path

import pytest

from stationmaster.agents.claude_code import ownership

_OURS = range(64600, 64610)

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")


def _owner(path: Path) -> int:
    return path.lstat().st_uid


def test_a_tree_changes_hands(tmp_path: Path) -> None:
    top = tmp_path / "workspace"
    (top / "a" / "b").mkdir(parents=True)
    (top / "a" / "b" / "file").write_text("x")
    ownership.hand_over(top, 64600, _OURS)
    assert [_owner(path) for path in (top, top / "a", top / "a" / "b" / "file")] == [64600] * 3
    assert stat.S_IMODE(top.stat().st_mode) == 0o700
    ownership.hand_over(top, 64601, _OURS)
    assert _owner(top / "a" / "b" / "file") == 64601
    ownership.take_back(top)
    assert _owner(top) == 0
    assert _owner(top / "a") == 64601


def test_links_do_not_give_away_what_they_name(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("x")
    top = tmp_path / "workspace"
    top.mkdir()
    (top / "to-directory").symlink_to(outside)
    (top / "to-file").symlink_to(outside / "file")
    (top / "second-name").hardlink_to(outside / "file")
    ownership.hand_over(top, 64600, _OURS)
    assert [_owner(path) for path in (outside, outside / "file")] == [0, 0]
    assert _owner(top / "to-file") == 64600


def test_what_belongs_to_somebody_else_stays_theirs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    os.chown(tmp_path / "file", 65534, 65534)
    ownership.hand_over(tmp_path, 64600, _OURS)
    assert _owner(tmp_path / "file") == 65534


def test_a_top_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(OSError, match="link"):
        ownership.hand_over(tmp_path / "link", 64600, _OURS)
    assert _owner(tmp_path) == 0


def test_a_top_that_is_gone_is_taken_back_already(tmp_path: Path) -> None:
    ownership.take_back(tmp_path / "gone")
    assert list(tmp_path.iterdir()) == []
