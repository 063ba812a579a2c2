import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from stationmaster.kernel.errors import Invalid, NotFound, TooLarge
from stationmaster.sessions.runs.workspace import (
    DownloadLimits,
    Tree,
    WalkLimits,
    Workspaces,
    archive_of,
    extract_archive,
)
from tests.unit.sessions.workspace.looking import descriptors


def unpacked(data: bytes) -> dict[str, bytes | None]:
    """Names and contents of a tar.gz; None for a directory."""
    found: dict[str, bytes | None] = {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
        for info in tar:
            content = tar.extractfile(info) if info.isfile() else None
            found[info.name] = content.read() if content is not None else None
    return found


@pytest.fixture
def filled(path: Path, secret: Path) -> Path:
    (path / "src" / "empty").mkdir(parents=True)
    (path / "src" / "main.py").write_bytes(b"x" * 1_000_000)
    (path / "run").write_bytes(b"#!")
    (path / "run").chmod(0o700)
    (path / "link").symlink_to(secret)
    (path / "src" / "file-link").symlink_to(secret / "secret.txt")
    os.mkfifo(path / "fifo")
    return path


def test_everything_but_links_and_special_files(tree: Tree, filled: Path) -> None:
    data = b"".join(archive_of(tree))
    assert unpacked(data) == {
        "run": b"#!",
        "src": None,
        "src/empty": None,
        "src/main.py": b"x" * 1_000_000,
    }
    assert len(data) < 10_000


def test_some_of_it_each_once(tree: Tree, filled: Path) -> None:
    found = unpacked(b"".join(archive_of(tree, ["src", "src/main.py", "./run", "run"])))
    assert list(found) == ["src", "src/empty", "src/main.py", "run"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("missing", NotFound),
        ("link", Invalid),
        ("link/secret.txt", Invalid),
        ("fifo", Invalid),
        ("../x", Invalid),
        ("/etc/passwd", Invalid),
    ],
)
def test_a_bad_path_is_refused_before_the_first_byte(
    tree: Tree, filled: Path, name: str, kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        archive_of(tree, [name])


@pytest.mark.parametrize(
    "limits",
    [
        DownloadLimits(total_bytes=1_000_001),
        DownloadLimits(walk=WalkLimits(entries=2)),
        DownloadLimits(walk=WalkLimits(depth=1)),
    ],
)
def test_too_much_is_refused_before_the_first_byte(
    tree: Tree, filled: Path, limits: DownloadLimits
) -> None:
    with pytest.raises(TooLarge) as caught:
        archive_of(tree, limits=limits)
    assert caught.value.error_code == "download_too_large"


def test_a_sparse_file_counts_with_what_would_be_sent(tree: Tree, path: Path) -> None:
    with (path / "sparse").open("wb") as file:
        file.truncate(1024**4)
    with pytest.raises(TooLarge):
        archive_of(tree)


def test_files_that_change_meanwhile_keep_the_archive_whole(tree: Tree, path: Path) -> None:
    for name in ("a", "grows", "shrinks", "vanishes", "zlast"):
        (path / name).write_bytes(os.urandom(600_000))
    (path / "zlast").write_bytes(b"end")
    chunks = archive_of(tree)
    data = next(chunks)
    with (path / "grows").open("ab") as file:
        file.write(b"more")
    (path / "vanishes").unlink()
    stream = iter(chunks)
    while len(data) < 1_300_000:  # into "shrinks"
        data += next(stream)
    os.truncate(path / "shrinks", 10)
    found = unpacked(data + b"".join(stream))
    assert {name: len(content or b"") for name, content in found.items()} == {
        "a": 600_000,
        "grows": 600_000,
        "shrinks": 600_000,
        "zlast": 3,
    }
    assert (found["shrinks"] or b"").endswith(bytes(1000))


def test_an_iterator_closed_early_leaves_nothing_open(tree: Tree, path: Path) -> None:
    (path / "a").write_bytes(os.urandom(2_000_000))
    before = len(descriptors())
    chunks = archive_of(tree)
    next(chunks)
    next(chunks)
    assert len(descriptors()) > before
    chunks.close()  # type: ignore[attr-defined]  # it is a generator
    assert len(descriptors()) == before


def test_what_goes_out_comes_in_again(tree: Tree, path: Path, workspaces: Workspaces) -> None:
    names = [b"\xff\xfe", b"new\nline", "größe".encode(), b"-rf", b"d/" * 40 + b"deep", b"a\\b"]
    for name in names:
        file = Path(os.fsdecode(bytes(path) + b"/" + name))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name)
    data = b"".join(archive_of(tree))
    other = workspaces.create("sesn_2")
    with workspaces.open_tree(other) as target:
        extract_archive(target, io.BytesIO(data))
    for name in names:
        assert Path(os.fsdecode(bytes(other) + b"/" + name)).read_bytes() == name


def test_the_real_tar_reads_it(tree: Tree, filled: Path, tmp_path: Path) -> None:
    into = tmp_path / "into"
    into.mkdir()
    data = b"".join(archive_of(tree))
    subprocess.run(["tar", "-xzf", "-", "-C", str(into)], input=data, check=True, timeout=30)
    assert (into / "src" / "main.py").stat().st_size == 1_000_000
    assert os.access(into / "run", os.X_OK)
