import errno
import io
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from stationmaster.kernel.errors import Conflict, Invalid, TooLarge, Unavailable
from stationmaster.sessions.runs.workspace import (
    Tree,
    UploadedFile,
    UploadLimits,
    Workspaces,
    write_files,
)
from tests.unit.sessions.workspace.looking import contents, names


def failing_after(calls: int, number: int = errno.ENOSPC) -> Callable[[int, memoryview], int]:
    """A disk that takes some writes and then fails."""
    left = [calls]

    def write(fd: int, data: memoryview) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(number, "No room")
        return os.write(fd, data)

    return write


def test_files_arrive_with_their_content_and_reduced_modes(tree: Tree, path: Path) -> None:
    brought = write_files(
        tree,
        [
            UploadedFile("src/main.py", b"print()", 0o644),
            UploadedFile("./run.sh", io.BytesIO(b"x" * 200_000), 0o6777),
        ],
    )
    assert (brought.entries, brought.bytes) == (3, 200_007)
    assert (path / "src" / "main.py").read_bytes() == b"print()"
    assert (path / "run.sh").stat().st_size == 200_000
    assert (path / "run.sh").stat().st_mode & 0o7777 == 0o700
    assert (path / "src" / "main.py").stat().st_mode & 0o7777 == 0o600
    assert (path / "src").stat().st_mode & 0o7777 == 0o700


def test_files_replace_files_and_directories_are_merged(tree: Tree, path: Path) -> None:
    (path / "a" / "b").mkdir(parents=True)
    (path / "a" / "b" / "kept").write_text("kept")
    (path / "a" / "b" / "old").write_text("old")
    write_files(tree, [UploadedFile("a/b/old", b"new"), UploadedFile("a/c/more", b"more")])
    assert contents(path) == {"a/b/kept": "kept", "a/b/old": "new", "a/c/more": "more"}


def test_a_link_is_replaced_not_written_through(tree: Tree, path: Path, secret: Path) -> None:
    (path / "name").symlink_to(secret / "secret.txt")
    write_files(tree, [UploadedFile("name", b"new")])
    assert (secret / "secret.txt").read_text() == "canary"
    assert not (path / "name").is_symlink()


def test_a_hard_link_is_replaced_not_written_through(tree: Tree, path: Path, secret: Path) -> None:
    (path / "name").hardlink_to(secret / "secret.txt")
    write_files(tree, [UploadedFile("name", b"new")])
    assert (secret / "secret.txt").read_text() == "canary"


def test_a_directory_link_on_the_way_is_refused_and_undone(
    tree: Tree, path: Path, secret: Path
) -> None:
    (path / "link").symlink_to(secret)
    (path / "a").write_text("old")
    files = [UploadedFile("a", b"new"), UploadedFile("b/c", b"1"), UploadedFile("link/x", b"bad")]
    with pytest.raises(Conflict) as caught:
        write_files(tree, files)
    assert caught.value.error_code == "file_exists"
    assert contents(path) == {"a": "old"}
    assert not (path / "b").exists()
    assert names(secret) == ["secret.txt"]


def test_a_file_does_not_replace_a_directory(tree: Tree, path: Path) -> None:
    (path / "a").mkdir()
    with pytest.raises(Conflict):
        write_files(tree, [UploadedFile("a", b"")])
    assert (path / "a").is_dir()


@pytest.mark.parametrize(
    ("files", "limits", "code"),
    [
        ([("../x", b"")], UploadLimits(), "upload_path"),
        ([("/x", b"")], UploadLimits(), "upload_path"),
        ([("a\0", b"")], UploadLimits(), "upload_path"),
        ([("", b"")], UploadLimits(), "upload_path"),
        ([(".", b"")], UploadLimits(), "upload_path"),
        ([("a", b""), ("./a", b"")], UploadLimits(), "upload_duplicate"),
        ([("a", b""), ("a/b", b"")], UploadLimits(), "upload_duplicate"),
        ([("a/b", b""), ("a", b"")], UploadLimits(), "upload_duplicate"),
        ([("a", b"123")], UploadLimits(file_bytes=2), "upload_too_large"),
        ([("a", b"12"), ("b", b"3")], UploadLimits(total_bytes=2), "upload_too_large"),
        ([("a/b/c", b"")], UploadLimits(entries=2), "upload_too_many_entries"),
        ([("a/b/c", b"")], UploadLimits(depth=2), "upload_too_deep"),
    ],
)
def test_what_is_refused_leaves_nothing(
    tree: Tree,
    path: Path,
    files: list[tuple[str, bytes]],
    limits: UploadLimits,
    code: str,
) -> None:
    with pytest.raises(Invalid) as caught:
        write_files(tree, [UploadedFile("first", b"")] + [UploadedFile(*f) for f in files], limits)
    assert caught.value.error_code == code
    assert isinstance(caught.value, TooLarge) == code.endswith(("large", "entries", "deep"))
    assert names(path) == []
    assert names(tree.staging) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("calls", [0, 1, 2])
def test_a_full_disk_leaves_nothing(tree: Tree, path: Path, number: int, calls: int) -> None:
    (path / "a").write_text("old")
    files = [UploadedFile("a", b"new"), UploadedFile("b", io.BytesIO(b"x" * 100_000))]
    with pytest.raises(Unavailable) as caught:
        write_files(tree, files, write=failing_after(calls, number))
    assert caught.value.error_code == "disk_full"
    assert contents(path) == {"a": "old"}
    assert names(tree.staging) == []


def test_short_writes_are_completed(tree: Tree, path: Path) -> None:
    write_files(
        tree, [UploadedFile("a", b"0123456789")], write=lambda fd, data: os.write(fd, data[:3])
    )
    assert (path / "a").read_bytes() == b"0123456789"


def test_a_source_that_fails_leaves_nothing(tree: Tree, path: Path) -> None:
    class Cut(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        write_files(tree, [UploadedFile("a", b""), UploadedFile("b", Cut())])
    assert names(path) == []
    assert names(tree.staging) == []


_REAL = """
import sys
from pathlib import Path
from stationmaster.kernel.errors import Unavailable
from stationmaster.sessions.runs.workspace import UploadedFile, Workspaces, write_files
workspaces = Workspaces(Path(sys.argv[1]))
path = workspaces.create("sesn_1")
with workspaces.open_tree(path) as tree:
    try:
        write_files(tree, [UploadedFile("a", b"x" * 300_000), UploadedFile("b", b"x" * 900_000)])
    except Unavailable as error:
        print(error.error_code, list(path.iterdir()), list(tree.staging.iterdir()))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o size=1m none {tmp_path} && exec {sys.executable} -c '{_REAL}' "
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount + str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        timeout=30,
    )
    assert done.stdout == "disk_full [] []\n", done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_files_belong_to_whom_the_workspace_belongs(workspaces: Workspaces) -> None:
    path = workspaces.create("sesn_2")
    os.chown(path, 12345, 23456)
    with workspaces.open_tree(path) as tree:
        write_files(tree, [UploadedFile("a/b", b"")])
    for made in (path / "a", path / "a" / "b"):
        assert (made.stat().st_uid, made.stat().st_gid) == (12345, 23456)


def test_a_swapped_directory_never_takes_an_upload_out(
    tree: Tree, path: Path, secret: Path
) -> None:
    (path / "place").mkdir()
    (path / "link").symlink_to(secret)
    stop = threading.Event()
    swaps = 0

    def move(source: str, target: str) -> None:
        while True:  # an upload may have made the target while it was away
            try:
                (path / source).rename(path / target)
                return
            except OSError:
                shutil.rmtree(path / target, ignore_errors=True)

    def swap() -> None:
        nonlocal swaps
        while not stop.is_set():
            move("place", "kept")
            move("link", "place")
            move("place", "link")
            move("kept", "place")
            swaps += 1

    thread = threading.Thread(target=swap)
    thread.start()
    written = refused = 0
    try:
        while swaps < 300 or written == 0 or refused == 0:
            try:
                write_files(tree, [UploadedFile("place/file", b"mine")])
                written += 1
            except (Conflict, Invalid):
                refused += 1
    finally:
        stop.set()
        thread.join()
    assert names(secret) == ["secret.txt"]
