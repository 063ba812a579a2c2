"""Files on their way out and back: nothing leads out of the directory, nothing is lost."""

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from stationmaster.cli import directory as directory_module
from stationmaster.cli.changes import Archive
from stationmaster.cli.destination import Destination, Refused
from stationmaster.cli.directory import pack
from stationmaster.cli.exits import CommandError
from stationmaster.client import Artifact


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def artifact(path: str, change: str = "created", kind: str = "file") -> Artifact:
    return Artifact(path, kind, change, 1, {})


def archive(files: dict[str, str], *links: str) -> Archive:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for path, text in files.items():
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(text), 0o755 if path.endswith(".sh") else 0o644
            tar.addfile(info, io.BytesIO(text.encode()))
        for path in links:
            info = tarfile.TarInfo(path)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(info)
    return Archive(made)


# --- sending ----------------------------------------------------------------------------------


def names(path: Path) -> list[str]:
    with pack(path) as packed, tarfile.open(fileobj=packed.archive) as tar:
        assert sorted(packed.sent) == sorted(tar.getnames())
        return sorted(tar.getnames())


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "src").mkdir(parents=True)
    (root / "src" / "a.py").write_text("a")
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "secret.env").write_text("KEY")
    (root / "link").symlink_to("/etc/passwd")
    (root / "srclink").symlink_to("src")
    os.mkfifo(root / "pipe")
    return root


def test_a_plain_directory_is_packed_without_links_and_pipes(tree: Path) -> None:
    with pack(tree) as packed, tarfile.open(fileobj=packed.archive) as tar:
        assert sorted(tar.getnames()) == ["run.sh", "secret.env", "src/a.py"]
        assert tar.getmember("run.sh").mode & 0o100
        assert packed.left == {"link": "links", "srclink": "links", "pipe": "not regular files"}
        assert packed.sent["src/a.py"] == digest("a")
        assert packed.describe() == "3 files, 14 B; 3 left out (links, not regular files)"


@pytest.mark.skipif(shutil.which("git") is None, reason="git is missing")
def test_git_says_what_is_ignored(tree: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tree)], check=True)
    (tree / ".gitignore").write_text("*.env\n")
    assert names(tree) == [".gitignore", "run.sh", "src/a.py"]
    assert names(tree / "src") == ["a.py"]


@pytest.mark.skipif(shutil.which("git") is None, reason="git is missing")
def test_a_repository_cannot_make_git_run_something(tree: Path, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tree)], check=True)
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    subprocess.run(["git", "-C", str(tree), "config", "core.fsmonitor", str(hook)], check=True)
    assert "run.sh" in names(tree)
    assert not (tmp_path / "ran").exists()


def test_too_much_is_refused(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory_module, "MAX_TOTAL_BYTES", 5)
    with pytest.raises(CommandError, match="holds more than"), pack(tree):
        pass


def test_what_is_no_directory_is_refused(tree: Path) -> None:
    with pytest.raises(CommandError, match="is not a directory"), pack(tree / "run.sh"):
        pass


# --- bringing back ----------------------------------------------------------------------------


def test_files_are_written_below_the_destination(tmp_path: Path) -> None:
    files = {"a/b.txt": "new", "run.sh": "#!", "kept.txt": "not asked for"}
    with Destination.make(tmp_path / "out") as destination:
        outcome = archive(files).write_to(
            destination,
            [
                artifact("a/b.txt"),
                artifact("run.sh", "modified"),
                artifact("gone", "deleted"),
                artifact("missing"),
                artifact("l", kind="link"),
            ],
        )
    assert outcome.done == ["created   a/b.txt", "modified  run.sh"]
    assert outcome.left == {
        "missing": "the server did not send it",
        "l": "it is not a regular file",
    }
    assert (tmp_path / "out/a/b.txt").read_text() == "new"
    assert os.access(tmp_path / "out/run.sh", os.X_OK)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "run.sh"]


@pytest.mark.parametrize(
    "path",
    ["../x", "a/../../x", "/etc/x", "a//b", ".", "", "a\0b", ".git/hooks/pre-commit", "s/.GIT/x"],
)
def test_paths_that_lead_elsewhere_are_refused(tmp_path: Path, path: str) -> None:
    with Destination.make(tmp_path / "out") as destination:
        with pytest.raises(Refused):
            destination.write(path, io.BytesIO(b"x"), executable=False)
        with pytest.raises(Refused):
            destination.digest(path)
        with pytest.raises(Refused):
            destination.remove(path)
    assert [each.name for each in tmp_path.rglob("*")] == ["out"]


def test_links_are_neither_followed_nor_replaced(tmp_path: Path) -> None:
    outside, out = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    (outside / "file").write_text("safe")
    out.mkdir()
    (out / "dir").symlink_to(outside)
    (out / "file").symlink_to(outside / "file")
    with Destination.existing(out) as destination:
        for path in ("dir/file", "file"):
            with pytest.raises(Refused):
                destination.write(path, io.BytesIO(b"x"), executable=False)
            with pytest.raises(Refused):
                destination.digest(path)
        with pytest.raises(Refused):
            destination.remove("dir/file")
    assert (outside / "file").read_text() == "safe"
    assert (out / "file").is_symlink()


def test_an_archive_with_links_writes_none(tmp_path: Path) -> None:
    with Destination.make(tmp_path / "out") as destination:
        outcome = archive({}, "evil").write_to(destination, [artifact("evil")])
    assert outcome.left == {"evil": "the server did not send it"}
    assert list((tmp_path / "out").iterdir()) == []


def test_a_damaged_archive_is_an_error(tmp_path: Path) -> None:
    with (
        Destination.make(tmp_path) as destination,
        pytest.raises(CommandError, match="damaged"),
    ):
        Archive(io.BytesIO(b"no tar")).write_to(destination, [artifact("a")])


def test_changes_are_applied_where_nothing_else_changed(tmp_path: Path) -> None:
    (tmp_path / "edited.txt").write_text("old")
    (tmp_path / "removed.txt").write_text("old")
    sent = {"edited.txt": digest("old"), "removed.txt": digest("old")}
    with Destination.existing(tmp_path) as destination:
        outcome = archive({"edited.txt": "new", "made.txt": "new"}).apply_to(
            destination,
            [
                artifact("edited.txt", "modified"),
                artifact("made.txt"),
                artifact("removed.txt", "deleted"),
                artifact("never-sent.txt", "deleted"),
            ],
            sent,
        )
    assert outcome.left == {}
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "edited.txt": "new",
        "made.txt": "new",
    }


def test_a_person_s_own_work_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("edited.txt", "removed.txt", "ignored.txt"):
        (tmp_path / name).write_text("mine")
    sent = {"edited.txt": digest("old"), "removed.txt": digest("old")}
    with Destination.existing(tmp_path) as destination:
        outcome = archive({"edited.txt": "new", "ignored.txt": "new"}).apply_to(
            destination,
            [
                artifact("edited.txt", "modified"),
                artifact("ignored.txt"),
                artifact("removed.txt", "deleted"),
            ],
            sent,
        )
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(
        ("edited.txt", "removed.txt", "ignored.txt"), "mine"
    )
    with pytest.raises(CommandError, match="3 files not written"):
        outcome.tell("here")
    told = capsys.readouterr()
    assert told.out == "Nothing was written.\n"
    assert "left: ignored.txt: there is a file of this name" in told.err
    assert "left: edited.txt: it has changed here since" in told.err
