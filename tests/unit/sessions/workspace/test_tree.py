import gzip
import os
import socket
import threading
from pathlib import Path

import pytest

from stationmaster.kernel.errors import Conflict, Invalid, NotFound
from stationmaster.sessions.runs.workspace import (
    Snapshot,
    Tree,
    Walk,
    WalkLimits,
    archive_of,
    open_artifact,
    usage,
)
from tests.unit.sessions.workspace.looking import descriptors


def read(tree: Tree, path: str) -> bytes:
    with open_artifact(tree, path).file as file:
        return file.read()


def test_a_file_is_read_with_its_size(tree: Tree, path: Path) -> None:
    (path / "a").mkdir()
    (path / "a" / "b.txt").write_text("hello")
    artifact = open_artifact(tree, "./a//b.txt")
    with artifact.file as file:
        assert file.read() == b"hello"
    assert (artifact.entry.path, artifact.entry.size) == ("a/b.txt", 5)


def test_links_are_not_followed(tree: Tree, path: Path, secret: Path) -> None:
    (path / "file").symlink_to(secret / "secret.txt")
    (path / "directory").symlink_to(secret)
    (path / "inner").mkdir()
    (path / "inner" / "up").symlink_to("..")
    for name in ("file", "directory/secret.txt", "inner/up/file", "directory"):
        with pytest.raises(Invalid) as caught:
            open_artifact(tree, name)
        assert caught.value.error_code == "file_not_regular"


def test_what_is_no_file_is_refused_without_waiting(tree: Tree, path: Path) -> None:
    os.mkfifo(path / "fifo")
    (path / "directory").mkdir()
    with socket.socket(socket.AF_UNIX) as bound:
        here = Path.cwd()
        os.chdir(path)  # a socket's path must be short
        try:
            bound.bind("socket")
        finally:
            os.chdir(here)
        for name in ("fifo", "socket", "directory", ""):
            with pytest.raises(Invalid) as caught:
                open_artifact(tree, name)
            assert caught.value.error_code == "file_not_regular"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes device nodes")
def test_a_device_is_refused(tree: Tree, path: Path) -> None:
    os.mknod(path / "zero", 0o20600, os.makedev(1, 5))
    with pytest.raises(Invalid):
        open_artifact(tree, "zero")


def test_a_missing_file_is_not_found(tree: Tree) -> None:
    with pytest.raises(NotFound):
        open_artifact(tree, "no/such")


def test_links_among_own_files_are_read(tree: Tree, path: Path) -> None:
    (path / "one").write_text("x")
    (path / "two").hardlink_to(path / "one")
    assert read(tree, "two") == b"x"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_hard_link_to_another_users_file_is_refused(tree: Tree, path: Path, secret: Path) -> None:
    os.chown(secret / "secret.txt", 12345, 12345)
    (path / "mine").hardlink_to(secret / "secret.txt")
    with pytest.raises(Conflict):
        open_artifact(tree, "mine")


@pytest.mark.parametrize(
    ("text", "relative"),
    [
        ("/project", ""),
        ("/project/", ""),
        ("/workspace", ""),
        ("/workspace/src", "src"),
        ("/project//src/./deep", "src/deep"),
        ("src", "src"),
        (".", ""),
        ("", ""),
    ],
)
def test_where_to_work(tree: Tree, path: Path, text: str, relative: str) -> None:
    (path / "src" / "deep").mkdir(parents=True)
    assert tree.working_directory(text) == relative


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("/", "working_directory_outside"),
        ("/etc", "working_directory_outside"),
        ("/projects", "working_directory_outside"),
        ("/project/../etc", "working_directory_outside"),
        ("../other", "working_directory_outside"),
        ("//project", "working_directory_outside"),
        ("link", "working_directory_outside"),
        ("link/secret.txt", "working_directory_outside"),
        ("file", "working_directory_outside"),
        ("a\0b", "working_directory_outside"),
        ("missing", "working_directory_missing"),
    ],
)
def test_where_not_to_work(tree: Tree, path: Path, secret: Path, text: str, code: str) -> None:
    (path / "link").symlink_to(secret)
    (path / "file").touch()
    with pytest.raises(Invalid) as caught:
        tree.working_directory(text)
    assert caught.value.error_code == code
    assert caught.value.param == "working_directory"


def test_a_walk_tells_everything_once(tree: Tree, path: Path, secret: Path) -> None:
    (path / "b").mkdir()
    (path / "b" / "x").write_bytes(b"12")
    (path / "a\n\x1b[31m").touch()
    Path(os.fsdecode(bytes(path) + b"/\xff")).touch()
    (path / "link").symlink_to(secret)
    os.mkfifo(path / "pipe")
    walk = Walk(tree, WalkLimits())
    found = [(entry.path, entry.type) for entry in walk]
    assert found == [
        ("a\n\x1b[31m", "file"),
        ("b", "directory"),
        ("b/x", "file"),
        ("link", "link"),
        ("pipe", "other"),
        ("\uf7ff", "file"),
    ]
    assert walk.complete
    assert read(tree, "\uf7ff") == b""


def test_a_walk_is_bounded_and_says_so(tree: Tree, path: Path) -> None:
    for number in range(20):
        (path / f"{number}").touch()
    walk = Walk(tree, WalkLimits(entries=10))
    assert len(list(walk)) == 10
    assert not walk.complete


def test_ten_thousand_levels_are_bounded(tree: Tree, deep: Path) -> None:
    snapshot = Snapshot.take(tree)
    assert snapshot.truncated
    assert len(snapshot.entries) == 100
    assert not usage(tree).complete


def test_a_closed_walk_leaves_nothing_open(tree: Tree, path: Path) -> None:
    (path / "a" / "b" / "c").mkdir(parents=True)
    before = len(descriptors())
    walk = iter(Walk(tree, WalkLimits()))
    assert [next(walk).path for _ in range(3)] == ["a", "a/b", "a/b/c"]
    assert len(descriptors()) > before
    walk.close()  # type: ignore[attr-defined]  # it is a generator
    assert len(descriptors()) == before


def test_usage_counts_the_disk_and_each_inode_once(tree: Tree, path: Path) -> None:
    (path / "full").write_bytes(b"x" * 100_000)
    (path / "again").hardlink_to(path / "full")
    with (path / "sparse").open("wb") as file:
        file.truncate(10 * 1024**3)
    found = usage(tree)
    assert 100_000 <= found.bytes < 400_000
    assert found.entries == 3
    assert found.complete


def test_a_directory_swapped_for_a_link_never_leads_out(
    tree: Tree, path: Path, secret: Path
) -> None:
    """The agent swaps as fast as it can; whatever is read meanwhile is its own."""
    (path / "real").mkdir()
    (path / "real" / "secret.txt").write_text("own")
    (path / "link").symlink_to(secret)
    (path / "place").mkdir()
    (path / "place" / "secret.txt").write_text("own")
    stop = threading.Event()
    swaps = 0

    def swap() -> None:
        nonlocal swaps
        while not stop.is_set():
            (path / "place").rename(path / "kept")
            (path / "link").rename(path / "place")
            (path / "place").rename(path / "link")
            (path / "kept").rename(path / "place")
            swaps += 1

    thread = threading.Thread(target=swap)
    thread.start()
    read_own = refused = 0
    try:
        while swaps < 300 or read_own == 0 or refused == 0:
            try:
                assert read(tree, "place/secret.txt") == b"own"
                read_own += 1
            except (Invalid, NotFound):
                refused += 1
            paths = {entry.path for entry in Walk(tree, WalkLimits())}
            assert not any(name.startswith("link/") for name in paths)
            if swaps % 10 == 0:
                assert b"canary" not in gzip.decompress(b"".join(archive_of(tree)))
    finally:
        stop.set()
        thread.join()
