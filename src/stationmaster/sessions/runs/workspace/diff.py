"""What a run changed, as a diff in Git's format that `git apply` and `patch -p1` take."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Literal, Self

from stationmaster.kernel.errors import Conflict, StationmasterError
from stationmaster.sessions.runs.workspace.edit import Effort, hunks, split_lines
from stationmaster.sessions.runs.workspace.limits import DiffLimits
from stationmaster.sessions.runs.workspace.names import to_raw
from stationmaster.sessions.runs.workspace.removal import remove_below
from stationmaster.sessions.runs.workspace.snapshot import Change, Snapshot, changes
from stationmaster.sessions.runs.workspace.tree import Entry, Tree, typed_errors

_MANIFEST = "manifest.json"
_CONTENT = "content"
_VERSION = 1
_LOOK = 8000  # bytes looked at for a NUL, which makes a file binary: Git's rule
_NULL = b"/dev/null"

Kind = Literal["absent", "text", "binary", "large", "special"]


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison. `content` is that of a text."""

    kind: Kind
    content: bytes = b""
    executable: bool = False


class Baseline:
    """A workspace before a run: its snapshot, and the text files kept for a diff.

    It lives in a directory of its own outside of the workspace and outlasts the process, so that
    a run taken over by another worker still knows where it began.
    """

    def __init__(
        self, path: Path, snapshot: Snapshot, kept: Mapping[str, tuple[int, int]], binary: set[str]
    ) -> None:
        """Use `capture` or `open`."""
        self.path = path
        self.snapshot = snapshot
        self._kept = kept
        self._binary = binary

    @classmethod
    def capture(cls, tree: Tree, into: Path, limits: DiffLimits | None = None) -> Self:
        """Keep what `tree` holds in the new directory `into`. Whole, or nothing is left.

        Files over the limits and binary ones are remembered but not kept. Raises `Conflict`
        (`baseline_exists`) where `into` exists, `Unavailable` (`disk_full`).
        """
        limits = limits or DiffLimits()
        snapshot = Snapshot.take(tree, limits.snapshot)
        with typed_errors():
            try:
                into.mkdir(mode=0o700, parents=True)
            except FileExistsError:
                raise Conflict("There is a baseline already.", code="baseline_exists") from None
            try:
                kept, binary = _keep(tree, snapshot, into / _CONTENT, limits)
                _write_manifest(into, snapshot, kept, binary)
            except BaseException:
                discard(into)
                raise
        return cls(into, snapshot, kept, binary)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read a baseline again. Raises `NotFound` where there is none."""
        with typed_errors(path.name):
            content = (path / _MANIFEST).read_bytes()
        manifest = json.loads(content)
        entries = {row[0]: Entry(*row) for row in manifest["entries"]}
        digests = {name: bytes.fromhex(value) for name, value in manifest["digests"].items()}
        kept = {name: (value[0], value[1]) for name, value in manifest["kept"].items()}
        snapshot = Snapshot(entries, digests, manifest["truncated"])
        return cls(path, snapshot, kept, set(manifest["binary"]))

    def side(self, path: str) -> Side:
        """What is known of a path."""
        entry = self.snapshot.entries.get(path)
        if entry is None or entry.type == "directory":
            return Side("absent")
        if entry.type != "file":
            return Side("special")
        if path in self._binary:
            return Side("binary", executable=entry.executable)
        if path not in self._kept:
            return Side("large", executable=entry.executable)
        offset, size = self._kept[path]
        with typed_errors(), (self.path / _CONTENT).open("rb") as file:
            file.seek(offset)
            return Side("text", file.read(size), entry.executable)


def discard(path: Path) -> None:
    """Delete a baseline's directory. Idempotent."""
    with typed_errors():
        try:
            parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            remove_below(parent, os.fsencode(path.name))
        finally:
            os.close(parent)


def _keep(
    tree: Tree, snapshot: Snapshot, into: Path, limits: DiffLimits
) -> tuple[dict[str, tuple[int, int]], set[str]]:
    kept: dict[str, tuple[int, int]] = {}
    binary: set[str] = set()
    offset = 0
    with into.open("xb") as file:
        for path, entry in snapshot.entries.items():
            if entry.type != "file" or len(kept) >= limits.files:
                continue
            room = min(limits.file_bytes, limits.total_bytes - offset)
            found = _read(tree, path, room) if entry.size <= room else Side("large")
            if found.kind == "binary":
                binary.add(path)
            elif found.kind == "text":
                file.write(found.content)
                kept[path] = (offset, len(found.content))
                offset += len(found.content)
    return kept, binary


def _write_manifest(
    into: Path, snapshot: Snapshot, kept: Mapping[str, tuple[int, int]], binary: set[str]
) -> None:
    manifest = {
        "version": _VERSION,
        "truncated": snapshot.truncated,
        "entries": [astuple(entry) for entry in snapshot.entries.values()],
        "digests": {path: digest.hex() for path, digest in snapshot.digests.items()},
        "kept": dict(kept),
        "binary": sorted(binary),
    }
    partial = into / (_MANIFEST + ".partial")
    partial.write_text(json.dumps(manifest, separators=(",", ":")))
    partial.rename(into / _MANIFEST)


def _read(tree: Tree, path: str, limit: int) -> Side:
    """Read a file of the tree as it is now."""
    try:
        with tree.open_file(path) as file:
            executable = bool(os.fstat(file.fileno()).st_mode & 0o100)
            content = file.read(limit + 1)
    except (StationmasterError, OSError):
        return Side("special")
    if b"\0" in content[:_LOOK]:
        return Side("binary", executable=executable)
    if len(content) > limit:
        return Side("large", executable=executable)
    return Side("text", content, executable)


def unified_diff(
    baseline: Baseline, tree: Tree, limits: DiffLimits | None = None
) -> Iterator[bytes]:
    """Yield the diff from the baseline to the tree as it is now, some lines at a time.

    Bytes, because a patch must keep each file's own encoding. What cannot be shown as text stands
    on a line of its own that `git apply` and `patch` skip: `Binary files a/x and b/x differ`, or
    `Not shown: …` with the reason. Keep the tree open until the iterator is at its end or closed.
    """
    limits = limits or DiffLimits()
    effort = Effort(limits.effort)
    after = Snapshot.take(tree, limits.snapshot, digests=False)
    written = 0
    for change in changes(baseline.snapshot, after, tree):
        if written > limits.output_bytes:
            yield b"Not shown: further differences (the diff is too long)\n"
            return
        for piece in _one(baseline, tree, change, limits, effort):
            written += len(piece)
            yield piece
    if after.truncated or baseline.snapshot.truncated:
        yield b"Not shown: some of the workspace (it has too many entries)\n"


def _one(
    baseline: Baseline, tree: Tree, change: Change, limits: DiffLimits, effort: Effort
) -> Iterator[bytes]:
    raw = to_raw(change.path)
    old = baseline.side(change.path)
    if change.kind == "deleted":
        new = Side("absent")
    elif change.type != "file":
        new = Side("special")
    else:
        new = _read(tree, change.path, limits.file_bytes)
    if {old.kind, new.kind} <= {"absent", "text"}:
        yield from _text(raw, old, new, effort)
    elif "binary" in {old.kind, new.kind}:
        before = _NULL if old.kind == "absent" else _quote(b"a/" + raw)
        after = _NULL if new.kind == "absent" else _quote(b"b/" + raw)
        yield b"Binary files %s and %s differ\n" % (before, after)
    else:
        large = "large" in {old.kind, new.kind}
        reason = b"too large" if large else b"a link or special file"
        side = b"a/" if change.kind == "deleted" else b"b/"
        what = change.kind.encode()
        yield b"Not shown: %s %s (%s)\n" % (_quote(side + raw), what, reason)


def _text(raw: bytes, old: Side, new: Side, effort: Effort) -> Iterator[bytes]:
    before, after = _quote(b"a/" + raw), _quote(b"b/" + raw)
    header = [b"diff --git %s %s\n" % (before, after)]
    if old.kind == "absent":
        header.append(b"new file mode %s\n" % _mode(new))
    elif new.kind == "absent":
        header.append(b"deleted file mode %s\n" % _mode(old))
    elif old.executable != new.executable:
        header.append(b"old mode %s\nnew mode %s\n" % (_mode(old), _mode(new)))
    elif old.content == new.content:
        return
    mode = b" " + _mode(new) if _same_mode(old, new) else b""
    header.append(b"index %s..%s%s\n" % (_blob(old), _blob(new), mode))
    yield b"".join(header)
    if old.content == new.content:
        return
    # After a name with a blank comes a tab, or `patch` takes the name for ended.
    tab = b"\t" if b" " in raw and not before.startswith(b'"') else b""
    yield b"--- %s\n+++ %s\n" % (
        _NULL if old.kind == "absent" else before + tab,
        _NULL if new.kind == "absent" else after + tab,
    )
    yield from hunks(split_lines(old.content), split_lines(new.content), effort)


def _same_mode(old: Side, new: Side) -> bool:
    return "absent" not in {old.kind, new.kind} and old.executable == new.executable


def _blob(side: Side) -> bytes:
    """Git's short name of a content. `patch` knows by it that a file is empty, not missing."""
    if side.kind == "absent":
        return b"0000000"
    header = b"blob %d\0" % len(side.content)
    digest = hashlib.sha1(header + side.content, usedforsecurity=False)
    return digest.hexdigest()[:7].encode()


def _mode(side: Side) -> bytes:
    return b"100755" if side.executable else b"100644"


def _quote(name: bytes) -> bytes:
    r"""Write a name as Git does: bare, or in C's quotes where it could be taken for something else.

    A newline in a name would otherwise begin a line of the patch.
    """
    try:
        foreign = not name.decode().isprintable()
    except UnicodeDecodeError:
        foreign = True
    if not foreign and b'"' not in name and b"\\" not in name:
        return name
    return b'"' + b"".join(_QUOTED[byte] for byte in name) + b'"'


_QUOTED = [
    bytes([byte]) if 0x20 <= byte < 0x7F and byte not in b'"\\' else b"\\%03o" % byte
    for byte in range(256)
]
