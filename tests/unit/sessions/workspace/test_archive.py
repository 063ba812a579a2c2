import bz2
import gzip
import io
import lzma
import os
import struct
import tarfile
import threading
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stationmaster.kernel.errors import Conflict, Invalid, StationmasterError, TooLarge, Unavailable
from stationmaster.sessions.runs.workspace import Tree, UploadLimits, extract_archive
from tests.unit.sessions.workspace.looking import contents, names, raw_names
from tests.unit.sessions.workspace.test_upload import failing_after

Pack = Callable[[bytes], bytes]


def member(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def tar_of(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def zip_of(*members: tuple[zipfile.ZipInfo | str, bytes], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", how) as archive:
        for info, content in members:
            archive.writestr(info, content)
    return out.getvalue()


def zip_member(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def refused(tree: Tree, path: Path, data: bytes, limits: UploadLimits | None = None) -> str:
    """Extract, expect a refusal and an untouched workspace; return the code."""
    before = contents(path), names(path)
    with pytest.raises(StationmasterError) as caught:
        extract_archive(tree, io.BytesIO(data), limits)
    assert (contents(path), names(path)) == before
    assert names(tree.staging) == []
    assert isinstance(caught.value, Invalid | Conflict)
    if caught.value.error_code.endswith(("large", "bomb", "entries", "deep")):
        assert isinstance(caught.value, TooLarge)
    return caught.value.error_code


@pytest.mark.parametrize(
    "pack",
    [
        bytes,
        gzip.compress,
        bz2.compress,
        lzma.compress,
        lambda data: gzip.compress(data[:700]) + gzip.compress(data[700:]) + bytes(512),
    ],
    ids=["tar", "gzip", "bzip2", "xz", "members and padding"],
)
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_a_tar_is_unpacked(tree: Tree, path: Path, pack: Pack, form: int) -> None:
    long = "/".join(["directory-with-a-long-name"] * 6) + "/file"
    data = tar_of(
        member("./", type=tarfile.DIRTYPE),
        member("./src", type=tarfile.DIRTYPE, mode=0o777),
        member("src/main.py", b"x" * 100_000, mode=0o644),
        member("run", b"#!", mode=0o6755, uid=0, uname="root"),
        member(long, b"deep"),
        member("empty"),
        form=form,
    )
    brought = extract_archive(tree, io.BytesIO(pack(data)))
    assert brought.bytes == 100_006
    assert (path / "src" / "main.py").read_text() == "x" * 100_000
    assert (path / long).read_text() == "deep"
    assert (path / "run").stat().st_mode & 0o7777 == 0o700
    assert (path / "src" / "main.py").stat().st_mode & 0o7777 == 0o600
    assert (path / "src").stat().st_mode & 0o7777 == 0o700
    assert (path / "empty").stat().st_size == 0


def test_names_that_are_not_utf8_survive_a_tar(tree: Tree, path: Path) -> None:
    data = tar_of(member("caf\udce9"), form=tarfile.GNU_FORMAT)
    extract_archive(tree, io.BytesIO(data))
    assert raw_names(path) == [b"caf\xe9"]


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_is_unpacked(tree: Tree, path: Path, how: int) -> None:
    data = zip_of(
        ("src/", b""),
        ("src/main.py", b"x" * 100_000),
        (zip_member("run", 0o104755), b"#!"),
        ("größe.txt", b"1"),
        how=how,
    )
    extract_archive(tree, io.BytesIO(data))
    assert contents(path) == {"src/main.py": "x" * 100_000, "run": "#!", "größe.txt": "1"}
    assert (path / "run").stat().st_mode & 0o7777 == 0o700
    assert (path / "größe.txt").stat().st_mode & 0o7777 == 0o600


def test_an_archive_lies_over_what_is_there(tree: Tree, path: Path) -> None:
    (path / "a").write_text("old")
    (path / "kept").write_text("kept")
    extract_archive(tree, io.BytesIO(tar_of(member("a", b"new"))))
    assert contents(path) == {"a": "new", "kept": "kept"}


def test_names_that_differ_in_case_are_two_files(tree: Tree, path: Path) -> None:
    extract_archive(tree, io.BytesIO(tar_of(member("A", b"1"), member("a", b"2"))))
    assert contents(path) == {"A": "1", "a": "2"}


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "a/..", "..", "x" * 256])
def test_paths_that_leave_are_refused(tree: Tree, path: Path, name: str) -> None:
    first = member("first", b"1")
    assert refused(tree, path, tar_of(first, member(name, b"bad"))) == "archive_path"
    assert refused(tree, path, zip_of(("first", b"1"), (name, b"bad"))) == "archive_path"


@pytest.mark.parametrize("name", ["..\\x", "C:\\x", "a\0/../x"])
def test_paths_that_leave_elsewhere_are_refused(tree: Tree, path: Path, name: str) -> None:
    data = zip_of((name.replace("\0", "~"), b"bad")).replace(b"a~/", b"a\0/")
    assert refused(tree, path, data) == "archive_path"


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (tarfile.SYMTYPE, "archive_link"),
        (tarfile.LNKTYPE, "archive_link"),
        (tarfile.CHRTYPE, "archive_special"),
        (tarfile.BLKTYPE, "archive_special"),
        (tarfile.FIFOTYPE, "archive_special"),
        (b"Z", "archive_special"),
    ],
)
def test_only_files_and_directories_are_taken(
    tree: Tree, path: Path, kind: bytes, code: str
) -> None:
    data = tar_of(member("first", b"1"), member("x", type=kind, linkname="/etc/passwd"))
    assert refused(tree, path, data) == code


@pytest.mark.parametrize(
    ("mode", "code"), [(0o120777, "archive_link"), (0o020666, "archive_special")]
)
def test_only_files_and_directories_are_taken_of_a_zip(
    tree: Tree, path: Path, mode: int, code: str
) -> None:
    assert refused(tree, path, zip_of((zip_member("x", mode), b"/etc/passwd"))) == code


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "names", [("a", "a"), ("a", "./a"), ("a/b", "a//b"), ("a", "a/b"), ("a/b", "a")]
)
def test_duplicates_are_refused(tree: Tree, path: Path, names: tuple[str, str]) -> None:
    data = tar_of(*(member(name, b"1") for name in names))
    assert refused(tree, path, data) == "archive_duplicate"
    assert refused(tree, path, zip_of(*((name, b"1") for name in names))) == "archive_duplicate"


LIMITS = UploadLimits(
    total_bytes=1_000_000, file_bytes=600_000, entries=5, depth=3, ratio=50, ratio_floor_bytes=1000
)
NOISE = os.urandom(400_000)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize(
    ("members", "code"),
    [
        ([("a", NOISE + NOISE)], "archive_too_large"),
        ([("a", NOISE), ("b", NOISE), ("c", NOISE)], "archive_too_large"),
        ([(f"{n}", b"") for n in range(6)], "archive_too_many_entries"),
        ([("1/2/3", b""), ("1/4", b""), ("5/6", b"")], "archive_too_many_entries"),
        ([("1/2/3/4", b"")], "archive_too_deep"),
    ],
)
def test_limits(
    tree: Tree, path: Path, pack: Pack, members: list[tuple[str, bytes]], code: str
) -> None:
    data = pack(tar_of(*(member(*each) for each in members)))
    assert refused(tree, path, data, LIMITS) == code
    assert refused(tree, path, zip_of(*members), LIMITS) == code


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_bomb_is_refused(tree: Tree, path: Path, pack: Pack) -> None:
    zeros = bytes(500_000)
    assert refused(tree, path, pack(tar_of(member("a", zeros))), LIMITS) == "archive_bomb"
    assert refused(tree, path, zip_of(("a", zeros)), LIMITS) == "archive_bomb"


def test_a_bomb_is_not_unpacked_far(tree: Tree, path: Path) -> None:
    """Nested zeros in ten kilobytes: what is written before the refusal is bounded."""
    taken = 0

    def write(fd: int, data: memoryview) -> int:
        nonlocal taken
        taken += len(data)
        return os.write(fd, data)

    data = gzip.compress(tar_of(member("a", bytes(50_000_000))))
    with pytest.raises(TooLarge):
        extract_archive(tree, io.BytesIO(data), LIMITS, write=write)
    assert taken <= LIMITS.file_bytes


def test_a_long_header_is_not_read_into_memory(tree: Tree, path: Path) -> None:
    """An extended header may claim any length, and compressed it costs nothing."""
    header = tarfile.TarInfo("x")
    header.type = tarfile.XHDTYPE
    header.size = 100_000_000
    block = header.tobuf(tarfile.USTAR_FORMAT)
    data = gzip.compress(block + bytes(header.size))
    assert refused(tree, path, data) == "archive_damaged"


def test_headers_upon_headers_are_refused(tree: Tree, path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type = tarfile.GNUTYPE_LONGNAME
    header.size = 2
    link = header.tobuf(tarfile.GNU_FORMAT) + b"n\0".ljust(512, b"\0")
    data = link * 5000 + tar_of(member("a"))
    assert refused(tree, path, data) == "archive_damaged"


def checksummed(block: bytearray) -> bytes:
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def test_a_negative_size_is_refused(tree: Tree, path: Path) -> None:
    block = bytearray(member("a")[0].tobuf(tarfile.GNU_FORMAT))
    block[124:136] = b"\xff" * 11 + b"\x00"
    assert refused(tree, path, checksummed(block) + bytes(1024)) == "archive_special"


def test_a_size_beyond_the_end_is_refused(tree: Tree, path: Path) -> None:
    data = tar_of(member("a", b"x" * 1000))
    assert refused(tree, path, data[:1000]) == "archive_damaged"
    assert refused(tree, path, gzip.compress(data)[:-30]) == "archive_damaged"


def test_a_broken_header_in_the_middle_is_not_taken_for_the_end(tree: Tree, path: Path) -> None:
    data = bytearray(tar_of(member("a", b"1"), member("b", b"2")))
    data[1024 + 10] ^= 0xFF
    assert refused(tree, path, bytes(data)) == "archive_damaged"


def test_a_zip_that_lies_about_sizes_is_refused(tree: Tree, path: Path) -> None:
    data = zip_of(("a", b"x" * 1000), how=zipfile.ZIP_STORED)
    size = struct.pack("<L", 1000)
    for claimed in (10, 999, 1001, 4000):
        lie = data.replace(size, struct.pack("<L", claimed))
        assert refused(tree, path, lie) == "archive_damaged"


def test_a_zip_of_endless_entries_is_refused(tree: Tree, path: Path) -> None:
    data = zip_of(*((f"{n}", b"") for n in range(20_000)))
    assert refused(tree, path, data, LIMITS) == "archive_too_many_entries"


def test_other_compressions_and_encryption_are_refused(tree: Tree, path: Path) -> None:
    assert refused(tree, path, zip_of(("a", b"1"), how=zipfile.ZIP_BZIP2)) == "archive_unsupported"
    data = bytearray(zip_of(("a", b"1")))
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(magic) + offset] |= 1
    assert refused(tree, path, bytes(data)) == "archive_encrypted"


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"\x1f\x8b", gzip.compress(b"no tar", mtime=0), b"7z\xbc"]
)
def test_what_is_no_archive_is_refused(tree: Tree, path: Path, data: bytes) -> None:
    assert refused(tree, path, data) in {"archive_unsupported", "archive_damaged"}


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_a_full_disk_leaves_nothing(tree: Tree, path: Path, calls: int) -> None:
    data = tar_of(member("a", b"1"), member("b", b"x" * 200_000))
    with pytest.raises(Unavailable) as caught:
        extract_archive(tree, io.BytesIO(data), write=failing_after(calls))
    assert caught.value.error_code == "disk_full"
    assert names(path) == []
    assert names(tree.staging) == []


SEEDS = [
    tar_of(member("a/b", b"content" * 50), member("d", type=tarfile.DIRTYPE), member("é" * 80)),
    tar_of(member("x" * 150, b"1"), form=tarfile.GNU_FORMAT),
    zip_of(("a/b", b"content" * 50), ("d/", b"")),
    gzip.compress(tar_of(member("a", b"1"))),
    bz2.compress(tar_of(member("a", b"1"))),
    lzma.compress(tar_of(member("a", b"1"))),
]


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.sampled_from(SEEDS),
    edits=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6),
    cut=st.floats(0, 1),
)
def test_a_broken_archive_is_unpacked_inside_or_refused(
    tree: Tree, path: Path, seed: bytes, edits: list[tuple[float, int]], cut: float
) -> None:
    data = bytearray(seed[: int(len(seed) * (0.5 + cut))])
    for where, value in edits:
        data[int(where * len(data))] = value
    outside = names(path.parent.parent)
    with suppress(Invalid, Conflict):
        extract_archive(tree, io.BytesIO(bytes(data)), LIMITS)
    assert names(tree.staging) == []
    assert names(path.parent.parent) == outside
    assert not any(found.is_symlink() for found in path.rglob("*"))


def test_two_uploads_at_once_do_not_mix(tree: Tree, path: Path) -> None:
    archives = [
        tar_of(*(member(f"{who}/{n}", who.encode()) for n in range(50))) for who in ("x", "y")
    ]
    threads = [
        threading.Thread(target=extract_archive, args=(tree, io.BytesIO(data))) for data in archives
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = contents(path)
    assert len(found) == 100
    assert all(value == name[0] for name, value in found.items())
