import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stationmaster.kernel.errors import Invalid, NotFound, StationmasterError
from stationmaster.kernel.principal import Owner
from stationmaster.sessions.runs.workspace import Tree, Workspaces
from tests.unit.sessions.workspace.looking import descriptors, names

OWNER = Owner("org_1", "proj_1")
OTHER = Owner("org_1", "proj_2")


def trash(workspaces: Workspaces) -> list[str]:
    return names(workspaces.root / ".trash")


def test_a_session_has_its_own_directory(workspaces: Workspaces) -> None:
    path = workspaces.create("sesn_1")
    assert path.stat().st_mode & 0o7777 == 0o700
    assert workspaces.create("sesn_1") == path
    assert workspaces.create("sesn_2") != path


def test_runs_of_one_owner_share_by_name(workspaces: Workspaces) -> None:
    one = workspaces.shared(OWNER, "team.docs", "run_1")
    two = workspaces.shared(OWNER, "team.docs", "run_2")
    assert one.parent == two.parent
    (one / "note").write_text("from one")
    with workspaces.open_tree(two.parent) as tree, tree.open_file("run_1/note") as file:
        assert file.read() == b"from one"
    assert workspaces.shared(OTHER, "team.docs", "run_1").parent != one.parent
    assert workspaces.shared(OWNER, "other", "run_1").parent != one.parent


BAD = ["", ".", "..", "a/b", "/a", ".hidden", "-rf", "a b", "a\n", "a\0", "x" * 65, "ä", "a\\b"]


@pytest.mark.parametrize("name", BAD)
def test_names_have_a_strict_form(workspaces: Workspaces, name: str) -> None:
    with pytest.raises(Invalid) as caught:
        workspaces.shared(OWNER, name, "run_1")
    assert caught.value.error_code == "workspace_name"
    with pytest.raises(Invalid):
        workspaces.shared(OWNER, "name", name)
    with pytest.raises(Invalid):
        workspaces.create(name)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.text(max_size=70))
def test_no_name_leads_out(workspaces: Workspaces, name: str) -> None:
    try:
        path = workspaces.shared(OWNER, name, "run_1")
    except Invalid:
        return
    assert path.resolve() == workspaces.root / "shared" / "proj_1" / name / "run_1"


@pytest.mark.parametrize(
    "path",
    [
        ".",
        "sessions",
        "shared/proj_1",
        ".trash",
        ".trash/x",
        "sessions/../sessions/sesn_1/..",
        "..",
        "/etc",
        "sessions/sesn_1/inside",
        "shared/proj_1/a/b/c",
    ],
)
def test_only_workspaces_are_opened_and_removed(workspaces: Workspaces, path: str) -> None:
    inside = workspaces.create("sesn_1") / "inside"
    inside.mkdir()
    with pytest.raises(Invalid):
        workspaces.open_tree(workspaces.root / path)
    with pytest.raises(Invalid):
        workspaces.remove(workspaces.root / path)
    assert inside.exists()


def test_a_link_in_place_of_a_workspace_is_refused(workspaces: Workspaces, secret: Path) -> None:
    run = workspaces.shared(OWNER, "team", "run_1")
    run.rmdir()
    run.symlink_to(secret)
    with pytest.raises(StationmasterError):
        workspaces.open_tree(run)
    with pytest.raises(StationmasterError):
        workspaces.shared(OWNER, "team", "run_1")
    assert workspaces.remove(run)
    assert names(secret) == ["secret.txt"]


def test_a_missing_workspace_is_not_found(workspaces: Workspaces) -> None:
    with pytest.raises(NotFound):
        workspaces.open_tree(workspaces.root / "sessions" / "sesn_9")
    assert workspaces.remove(workspaces.root / "sessions" / "sesn_9")


def test_removal_takes_everything_and_follows_nothing(
    workspaces: Workspaces, path: Path, secret: Path
) -> None:
    (path / "a" / "b").mkdir(parents=True)
    (path / "a" / "file").touch()
    (path / "a" / "link").symlink_to(secret)
    (path / "file-link").symlink_to(secret / "secret.txt")
    (path / "hard").hardlink_to(secret / "secret.txt")
    os.mkfifo(path / "fifo")
    Path(os.fsdecode(bytes(path) + b"/\xff\n")).mkdir()
    assert workspaces.remove(path)
    assert not path.exists()
    assert trash(workspaces) == []
    assert (secret / "secret.txt").read_text() == "canary"
    assert workspaces.remove(path)


def test_ten_thousand_levels_are_removed(workspaces: Workspaces, deep: Path) -> None:
    before = len(descriptors())
    assert workspaces.remove(deep)
    assert trash(workspaces) == []
    assert len(descriptors()) == before


_LOCKED = """
import os, sys
from pathlib import Path
from stationmaster.sessions.runs.workspace import Workspaces
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(12345); os.setuid(12345)
workspaces = Workspaces(Path(sys.argv[1]) / "root")
path = workspaces.create("sesn_1")
(path / "shut" / "deep" / "er").mkdir(parents=True)
(path / "shut" / "deep" / "er" / "file").touch()
for name in ("shut/deep/er", "shut/deep", "shut"):
    (path / name).chmod(0)
path.chmod(0o500)
print(workspaces.remove(path), os.listdir(workspaces.root / ".trash"))
"""


@pytest.fixture
def common() -> Iterator[Path]:
    """A directory that another user can reach; pytest's own are private."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o777)
        yield Path(made)


def test_unreadable_directories_are_removed_without_being_root(common: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LOCKED, str(common)],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        timeout=30,
    )
    assert done.stdout == "True []\n", done.stderr


_FOREIGN = (
    _LOCKED[: _LOCKED.index("workspaces =")]
    + """
workspaces = Workspaces(Path(sys.argv[1]) / "root")
print(workspaces.remove(workspaces.root / "sessions" / "sesn_1"))
print(workspaces.root.joinpath("sessions", "sesn_1").exists())
"""
)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_another_user_holds_is_moved_away_and_left_for_the_sweep(
    common: Path,
) -> None:
    workspaces = Workspaces(common / "root")
    path = workspaces.create("sesn_1")
    held = path / "held"
    held.mkdir()
    (held / "file").touch()
    (path / "own").touch()
    workspaces.sweep(0)  # makes trash and staging
    for directory in [workspaces.root, *workspaces.root.rglob("*")]:
        if held not in [directory, *directory.parents]:
            os.chown(directory, 12345, 12345)
    done = subprocess.run(
        [sys.executable, "-c", _FOREIGN, str(common)],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        timeout=30,
    )
    assert done.stdout.splitlines()[-2:] == ["False", "False"], done.stderr
    assert trash(workspaces) != []
    assert workspaces.sweep(0) == 1  # as root
    assert trash(workspaces) == []


def test_a_sweep_takes_trash_and_what_is_stale_in_staging(workspaces: Workspaces) -> None:
    workspaces.sweep(0)
    (workspaces.root / ".trash" / "old" / "x").mkdir(parents=True)
    stale, fresh = (workspaces.root / ".staging" / name for name in ("stale", "fresh"))
    for place in (stale, fresh):
        place.mkdir()
    now = time.time()
    os.utime(stale, (now - 7200, now - 7200))
    assert workspaces.sweep(int(now * 1000)) == 2
    assert trash(workspaces) == []
    assert names(workspaces.root / ".staging") == ["fresh"]


def test_nothing_is_made_before_it_is_needed(tmp_path: Path) -> None:
    Workspaces(tmp_path / "root")
    assert not (tmp_path / "root").exists()


def test_a_tree_closes_once(workspaces: Workspaces, path: Path) -> None:
    tree: Tree = workspaces.open_tree(path)
    tree.close()
    tree.close()
    with pytest.raises(StationmasterError):
        tree.open_file("a")
