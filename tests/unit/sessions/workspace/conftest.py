"""A workspace to work on."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from stationmaster.sessions.runs.workspace import Tree, Workspaces
from tests.unit.sessions.workspace.looking import descriptors, nest


@pytest.fixture
def workspaces(tmp_path: Path) -> Workspaces:
    return Workspaces(tmp_path / "root")


@pytest.fixture
def path(workspaces: Workspaces) -> Path:
    return workspaces.create("sesn_1")


@pytest.fixture
def tree(workspaces: Workspaces, path: Path) -> Iterator[Tree]:
    before = descriptors()
    with workspaces.open_tree(path) as tree:
        yield tree
    assert descriptors() <= before


@pytest.fixture
def deep(path: Path) -> Iterator[Path]:
    """A workspace nested so deep that neither shutil nor pytest can delete it."""
    nest(path, 10_000)
    yield path
    subprocess.run(["rm", "-rf", str(path)], check=True, timeout=60)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A directory outside of every workspace, with something worth stealing."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text("canary")
    return outside
