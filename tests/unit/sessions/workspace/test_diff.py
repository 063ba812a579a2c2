import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stationmaster.kernel.errors import Conflict, NotFound
from stationmaster.sessions.runs.workspace import (
    Baseline,
    DiffLimits,
    Tree,
    Workspaces,
    unified_diff,
)
from stationmaster.sessions.runs.workspace.edit import Effort, edits, hunks, split_lines

LINES = st.lists(st.sampled_from([b"a\n", b"b\n", b"c\n", b"\n", b"\r\n"]), max_size=25)
CONTENT = st.builds(lambda lines, end: b"".join(lines) + end, LINES, st.sampled_from([b"", b"end"]))


def rebuilt(old: list[bytes], new: list[bytes], effort: int) -> list[bytes]:
    out: list[bytes] = []
    at = 0
    for a, b, c, d in edits(old, new, Effort(effort)):
        assert a >= at
        out += old[at:a] + new[c:d]
        at = b
    return out + old[at:]


@given(LINES, LINES, st.sampled_from([0, 60, 10**6]))
def test_edits_lead_from_old_to_new(old: list[bytes], new: list[bytes], effort: int) -> None:
    assert rebuilt(old, new, effort) == new


@given(LINES, LINES)
def test_edits_are_the_fewest(old: list[bytes], new: list[bytes]) -> None:
    lengths = [[0] * (len(new) + 1) for _ in range(len(old) + 1)]
    for i, one in enumerate(old):
        for j, other in enumerate(new):
            lengths[i + 1][j + 1] = (
                lengths[i][j] + 1 if one == other else max(lengths[i][j + 1], lengths[i + 1][j])
            )
    found = sum(b - a + d - c for a, b, c, d in edits(old, new, Effort(10**6)))
    assert found == len(old) + len(new) - 2 * lengths[-1][-1]


def test_hostile_lines_are_bounded() -> None:
    old = [b"%d\n" % (n * 7919 % 50) for n in range(20_000)]
    new = [b"%d\n" % (n * 104729 % 50) for n in range(20_000)]
    effort = Effort(300_000)
    assert rebuilt(old, new, 300_000) == new
    assert edits(old, new, effort) == [(1, 19_999, 1, 19_999)] or effort.left <= 0
    assert effort.left > -100_000  # it stops soon after


@pytest.fixture
def into(tmp_path: Path) -> Path:
    return tmp_path / "baselines" / "run_1"


def capture(workspaces: Workspaces, into: Path, limits: DiffLimits | None = None) -> Baseline:
    with workspaces.open_tree(workspaces.root / "sessions" / "sesn_1") as tree:
        return Baseline.capture(tree, into, limits)


def state(path: Path) -> dict[bytes, tuple[bytes, bool]]:
    """Files by name, their content and whether they may be run; .git aside."""
    found = {}
    for directory, names, files in os.walk(bytes(path)):
        if b".git" in names:
            names.remove(b".git")
        for name in files:
            file = os.path.join(directory, name)  # noqa: PTH118 - bytes
            content = Path(os.fsdecode(file)).read_bytes()
            found[os.path.relpath(file, bytes(path))] = (content, os.access(file, os.X_OK))
    return found


def copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", str(source), str(target)], check=True, timeout=30)


def git_apply(path: Path, patch: bytes) -> None:
    """Apply strictly, outside of any repository."""
    subprocess.run(
        ["git", "apply", "--whitespace=nowarn", "-"],
        input=patch,
        cwd=path,
        check=True,
        timeout=30,
        env={"PATH": os.environ["PATH"], "GIT_CEILING_DIRECTORIES": str(path.parent)},
    )


def gnu_patch(path: Path, patch: bytes) -> None:
    subprocess.run(
        ["patch", "-p1", "--binary", "-s"], input=patch, cwd=path, check=True, timeout=30
    )


def prepare(path: Path) -> None:
    (path / "src").mkdir()
    (path / "src" / "main.py").write_text("".join(f"line {n}\n" for n in range(100)))
    (path / "no-newline").write_text("one\ntwo")
    (path / "gets-newline").write_text("one\ntwo")
    (path / "deleted").write_text("gone\n")
    (path / "deleted-empty").touch()
    (path / "mode").write_text("#!/bin/sh\n")
    (path / "crlf").write_bytes(b"a\r\nb\rc\r\n")
    (path / "latin").write_bytes(b"caf\xe9\nx\n")
    (path / "with space").write_text("a\n")
    (path / "binary").write_bytes(b"\0\1\2")
    (path / "emptied").write_text("a\n")


def change(path: Path) -> None:
    main = path / "src" / "main.py"
    main.write_text(main.read_text().replace("line 5\n", "").replace("line 50\n", "fifty\n50\n"))
    (path / "no-newline").write_text("one\ntwo\nthree")
    (path / "gets-newline").write_text("one\ntwo\n")
    (path / "deleted").unlink()
    (path / "deleted-empty").unlink()
    (path / "mode").chmod(0o755)
    (path / "crlf").write_bytes(b"a\r\nb\rd\r\n")
    (path / "latin").write_bytes(b"caf\xe9\ny\n")
    (path / "with space").write_text("b\n")
    (path / "emptied").write_text("")
    (path / "new" / "deep").mkdir(parents=True)
    (path / "new" / "deep" / "file").write_text("new\n")
    (path / "new" / "größe").write_text("ü")
    (path / "new" / "empty").touch()
    (path / "new" / "run").write_text("#!/bin/sh\n")
    (path / "new" / "run").chmod(0o755)
    (path / 'new" quoted\\').write_text("q\n")


def test_git_applies_it(
    tree: Tree, path: Path, workspaces: Workspaces, into: Path, tmp_path: Path
) -> None:
    prepare(path)
    copy(path, tmp_path / "copy")
    baseline = capture(workspaces, into)
    change(path)
    Path(os.fsdecode(bytes(path) + b"/new/\xff\nname")).write_text("odd\n")
    git_apply(tmp_path / "copy", b"".join(unified_diff(baseline, tree)))
    assert state(tmp_path / "copy") == state(path)


def test_patch_applies_it(
    tree: Tree, path: Path, workspaces: Workspaces, into: Path, tmp_path: Path
) -> None:
    prepare(path)
    copy(path, tmp_path / "copy")
    baseline = capture(workspaces, into)
    change(path)
    gnu_patch(tmp_path / "copy", b"".join(unified_diff(baseline, tree)))
    expected = state(path)
    assert state(tmp_path / "copy") == expected


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(old=CONTENT, new=CONTENT, effort=st.sampled_from([0, 10**6]))
def test_git_applies_any_hunks(tmp_path: Path, old: bytes, new: bytes, effort: int) -> None:
    (tmp_path / "f").write_bytes(old)
    body = b"".join(hunks(split_lines(old), split_lines(new), Effort(effort)))
    assert (body == b"") == (old == new)
    if body:
        git_apply(tmp_path, b"--- a/f\n+++ b/f\n" + body)
    assert ((tmp_path / "f").read_bytes() if (tmp_path / "f").exists() else b"") == new


def test_the_format(tree: Tree, path: Path, workspaces: Workspaces, into: Path) -> None:
    (path / "a").write_text("1\n2\n3\n4\n5\n6\n7\n8\n9")
    baseline = capture(workspaces, into)
    (path / "a").write_text("1\n2\n3\n4\nfive\n6\n7\n8\n9")
    (path / "b").write_text("new")
    assert b"".join(unified_diff(baseline, tree)) == (
        b"diff --git a/a b/a\nindex 83b2a16..f563de5 100644\n--- a/a\n+++ b/a\n"
        b"@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n"
        b"diff --git a/b b/b\nnew file mode 100644\nindex 0000000..3e5126c\n"
        b"--- /dev/null\n+++ b/b\n@@ -0,0 +1 @@\n+new\n"
        b"\\ No newline at end of file\n"
    )


def test_what_cannot_be_shown_is_said_on_lines_that_tools_skip(
    tree: Tree, path: Path, into: Path, workspaces: Workspaces, secret: Path
) -> None:
    tmp_path = secret.parent
    (path / "binary").write_bytes(b"\0\1\2")
    (path / "large").write_text("x" * 3000)
    (path / "text").write_text("a\n")
    copy(path, tmp_path / "copy")
    limits = DiffLimits(file_bytes=2000)
    baseline = capture(workspaces, into, limits)
    (path / "binary").write_bytes(b"\0\1\2\3")
    (path / "large").unlink()
    (path / "link\n+++ forged").symlink_to(secret / "secret.txt")
    (path / "new.bin").write_bytes(b"\0")
    (path / "text").write_text("b\n")
    patch = b"".join(unified_diff(baseline, tree, limits))
    lines = patch.split(b"\n")
    assert lines[:4] == [
        b"Binary files a/binary and b/binary differ",
        b"Not shown: a/large deleted (too large)",
        b'Not shown: "b/link\\012+++ forged" created (a link or special file)',
        b"Binary files /dev/null and b/new.bin differ",
    ]
    assert b"canary" not in patch
    git_apply(tmp_path / "copy", patch)
    assert (tmp_path / "copy" / "text").read_text() == "b\n"


def test_a_long_diff_ends_between_files(
    tree: Tree, path: Path, workspaces: Workspaces, into: Path
) -> None:
    baseline = capture(workspaces, into)
    for name in "abc":
        (path / name).write_text("x\n" * 100)
    patch = b"".join(unified_diff(baseline, tree, DiffLimits(output_bytes=100)))
    assert patch.count(b"diff --git") == 1
    assert patch.endswith(b"Not shown: further differences (the diff is too long)\n")


def test_a_baseline_outlasts_the_process(
    tree: Tree, path: Path, workspaces: Workspaces, into: Path
) -> None:
    prepare(path)
    Path(os.fsdecode(bytes(path) + b"/\xff")).write_text("odd\n")
    first = capture(workspaces, into)
    change(path)
    again = Baseline.open(into)
    assert again.snapshot == first.snapshot
    assert list(unified_diff(again, tree)) == list(unified_diff(first, tree))
    assert into.stat().st_mode & 0o7777 == 0o700


def test_there_is_one_baseline(tree: Tree, workspaces: Workspaces, into: Path) -> None:
    capture(workspaces, into)
    with pytest.raises(Conflict):
        capture(workspaces, into)
    with pytest.raises(NotFound):
        Baseline.open(into.parent / "run_2")


def test_what_a_baseline_keeps_is_bounded(
    tree: Tree, path: Path, workspaces: Workspaces, into: Path
) -> None:
    for name in "abcd":
        (path / name).write_bytes(b"x" * 100)
    baseline = capture(workspaces, into, DiffLimits(total_bytes=250, files=5))
    assert [baseline.side(name).kind for name in "abcd"] == ["text", "text", "large", "large"]
    assert baseline.side("missing").kind == "absent"
    assert (into / "content").stat().st_size == 200


def test_without_effort_left_a_file_is_replaced_whole(
    tree: Tree, path: Path, workspaces: Workspaces, into: Path, tmp_path: Path
) -> None:
    for number in range(3):
        (path / f"{number}").write_bytes(b"".join(b"%d\n" % (n % 7) for n in range(20_000)))
    copy(path, tmp_path / "copy")
    baseline = capture(workspaces, into)
    for number in range(3):
        (path / f"{number}").write_bytes(b"".join(b"%d\n" % (n * 3 % 11) for n in range(20_000)))
    patch = b"".join(unified_diff(baseline, tree, DiffLimits(effort=100_000)))
    assert patch.count(b"\n@@ ") == 3
    git_apply(tmp_path / "copy", patch)
    assert state(tmp_path / "copy") == state(path)
