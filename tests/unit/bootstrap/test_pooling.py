"""Where slots' directories are, and what becomes of them when their server dies."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stationmaster.bootstrap.pooling import SessionPlaces
from stationmaster.kernel.errors import Unavailable
from stationmaster.kernel.ids import new_id
from stationmaster.sessions.runs.workspace import Workspaces

_DIES_WITH_A_SLOT = """
import os, signal, sys
from pathlib import Path
from stationmaster.bootstrap.pooling import SessionPlaces
from stationmaster.sessions.runs.workspace import Workspaces
places = SessionPlaces(Workspaces(Path(sys.argv[1], "workspaces")), Path(sys.argv[1], "state"))
for slot in sys.argv[2:]:
    places.make(slot)
places.adopt(sys.argv[2])
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def places(tmp_path: Path) -> SessionPlaces:
    return SessionPlaces(Workspaces(tmp_path / "workspaces"), tmp_path / "state")


def beside(tmp_path: Path) -> SessionPlaces:
    """Those of another server on the same directories."""
    return SessionPlaces(Workspaces(tmp_path / "workspaces"), tmp_path / "state")


def test_a_slot_stands_where_a_session_would(places: SessionPlaces, tmp_path: Path) -> None:
    slot = new_id("slot")
    workspace, home = places.make(slot)
    assert workspace == tmp_path / "workspaces" / "sessions" / slot
    assert home == tmp_path / "state" / "homes" / slot
    assert [path.stat().st_mode & 0o777 for path in (workspace, home)] == [0o700, 0o700]


def test_a_discarded_one_is_gone_with_what_is_in_it(places: SessionPlaces, tmp_path: Path) -> None:
    slot = new_id("slot")
    workspace, home = places.make(slot)
    (workspace / "file").write_text("x")
    (home / ".claude").mkdir()
    for _ in range(2):
        places.discard(slot)
    assert not workspace.exists()
    assert not home.exists()
    assert list((tmp_path / "state" / "slots").iterdir()) == []


@pytest.mark.parametrize("adopted", [False, True])
def test_a_living_servers_slot_is_not_swept(
    places: SessionPlaces, tmp_path: Path, adopted: bool
) -> None:
    slot = new_id("slot")
    workspace, home = places.make(slot)
    if adopted:
        places.adopt(slot)
        places.adopt(slot)
    assert beside(tmp_path).sweep() == places.sweep() == 0
    assert workspace.is_dir()
    assert home.is_dir()


def test_a_dead_servers_slots_are_swept_but_not_what_a_session_adopted(
    places: SessionPlaces, tmp_path: Path
) -> None:
    adopted, *others = (new_id("slot") for _ in range(3))
    command = [sys.executable, "-c", _DIES_WITH_A_SLOT, str(tmp_path), adopted, *others]
    assert subprocess.run(command, check=False, cwd=Path.cwd()).returncode == -9
    assert places.sweep() == 2
    assert [path.name for path in (tmp_path / "workspaces" / "sessions").iterdir()] == [adopted]
    assert [path.name for path in (tmp_path / "state" / "homes").iterdir()] == [adopted]
    assert places.sweep() == 0


def test_one_that_is_just_being_made_is_not_swept(
    places: SessionPlaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open
    swept: list[int] = []

    def sweep_before_the_lock(path: str, *args: int, **kwargs: int) -> int:
        handle = opened(path, *args, **kwargs)
        if not swept:
            swept.append(0)
            swept[0] = beside(tmp_path).sweep()
        return handle

    monkeypatch.setattr(os, "open", sweep_before_the_lock)
    workspace, home = places.make(new_id("slot"))
    assert swept == [0]
    assert workspace.is_dir()
    assert home.is_dir()


def test_one_adopted_between_the_look_and_the_lock_is_left_alone(
    places: SessionPlaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = new_id("slot")
    workspace, _ = places.make(slot)
    opened = os.open

    def adopt_after_the_look(path: str, *args: int, **kwargs: int) -> int:
        handle = opened(path, *args, **kwargs)
        if str(path).endswith(f"slots/{slot}"):
            places.adopt(slot)
        return handle

    monkeypatch.setattr(os, "open", adopt_after_the_look)
    assert beside(tmp_path).sweep() == 0
    assert workspace.is_dir()


def test_a_full_disk_is_told_and_leaves_nothing(
    places: SessionPlaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_path: Path, *_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    places.make(new_id("slot"))
    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(Unavailable) as caught:
        places.make(new_id("slot"))
    assert caught.value.error_code == "disk_full"
    monkeypatch.undo()
    assert len(list((tmp_path / "state" / "slots").iterdir())) == 1
