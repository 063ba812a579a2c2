"""Unpacking an archive from outside: tar (also gzip, bzip2, xz) and zip, all of it or nothing.

Only regular files and directories are taken. A path that leaves the workspace, a link of either
kind, a device, a file that is there twice, an encrypted entry, and anything that lies about its
size make the whole archive `Invalid` or `TooLarge`. Two names that differ in case only are two
files, as on every Linux; where the file system holds them for one, the second is a duplicate.
"""

import io
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from stationmaster.kernel.errors import Invalid, TooLarge
from stationmaster.sessions.runs.workspace.inflate import (
    CHUNK,
    Unpacked,
    check_ratio,
    damaged,
    decompressor_for,
)
from stationmaster.sessions.runs.workspace.limits import UploadLimits
from stationmaster.sessions.runs.workspace.names import Parts, split_raw
from stationmaster.sessions.runs.workspace.staging import Staging, Write
from stationmaster.sessions.runs.workspace.tree import Tree
from stationmaster.sessions.runs.workspace.upload import Brought

_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_MAX_HEADER = 256 * 1024  # bytes of one extended tar header; a macOS attribute may take 64 KiB
_ENTRY_OVERHEAD = 4096  # bytes of a tar for an entry beside its content
_ZIP_ENTRY = 256  # bytes of a zip's directory for an entry, name included, on the average
_ENCRYPTED = 1  # bit of a zip entry's flags
_REGULAR = {tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE}
_NAME_CODE = "archive_path"


def extract_archive(
    tree: Tree,
    file: BinaryIO,
    limits: UploadLimits | None = None,
    *,
    write: Write = os.write,
) -> Brought:
    """Unpack `file`, which must be seekable, into the tree, over files of the same name.

    What kind it is is read from its bytes. Nothing is changed where it raises: `Invalid`
    (`archive_unsupported`, `archive_damaged`, `archive_path`, `archive_link`, `archive_special`,
    `archive_duplicate`, `archive_encrypted`), `TooLarge` (`archive_too_large`, `archive_bomb`,
    `archive_too_many_entries`, `archive_too_deep`), `Conflict` (`file_exists`), `Unavailable`
    (`disk_full`). Owners, times and all rights but the owner's to execute are not taken over.
    """
    limits = limits or UploadLimits()
    file.seek(0)
    head = file.read(tarfile.BLOCKSIZE)
    file.seek(0)
    with Staging(tree, limits, "archive", write) as staging:
        if head.startswith(_ZIP):
            _take_zip(staging, file, limits)
        else:
            _take_tar(staging, file, head, limits)
        staging.commit()
        return Brought(staging.entries, staging.bytes)


@contextmanager
def _reading() -> Iterator[None]:
    """Whatever the standard library says about a broken archive becomes `Invalid`."""
    try:
        yield
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,  # a zip's compression or version
        RuntimeError,  # a zip's encryption; RecursionError from tar headers upon tar headers
        ValueError,
        OverflowError,
        LookupError,
        struct.error,
    ) as error:
        raise damaged() from error


# --- tar --------------------------------------------------------------------------------------


class _Forward(io.RawIOBase):
    """A reader that only goes forward, for tarfile. Refuses what only a lying header asks for."""

    def __init__(self, source: BinaryIO | Unpacked) -> None:
        super().__init__()
        self._source = source
        self._at = 0
        self.last = b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        if whence != os.SEEK_SET or offset < self._at:
            raise damaged()
        while self._at < offset and self.read(min(CHUNK, offset - self._at)):
            pass
        return self._at

    def read(self, size: int = -1, /) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise damaged("A header of the archive is too long.")
        parts = []
        while size and (data := self._source.read(size)):
            parts.append(data)
            size -= len(data)
        self.last = b"".join(parts)
        self._at += len(self.last)
        return self.last


def _take_tar(staging: Staging, file: BinaryIO, head: bytes, limits: UploadLimits) -> None:
    source: BinaryIO | Unpacked = file
    make = decompressor_for(head)
    if make is not None:
        bound = limits.total_bytes + (limits.entries + 256) * _ENTRY_OVERHEAD
        source = Unpacked(file, make, limits, bound)
    forward = _Forward(source)
    with _reading():
        try:
            tar = tarfile.TarFile(
                fileobj=cast(BinaryIO, forward), encoding="utf-8", errors="surrogateescape"
            )
        except tarfile.ReadError as error:
            raise Invalid(
                "The archive must be a tar, tar.gz, tar.bz2, tar.xz or zip.",
                code="archive_unsupported",
            ) from error
        seen = 0
        while (info := tar.next()) is not None:
            seen += 1
            _check_count(seen, limits)
            _take_tar_entry(staging, tar, info)
    # tarfile takes a header it cannot read for the end of the archive.
    if forward.last.strip(b"\0"):
        raise damaged()


def _take_tar_entry(staging: Staging, tar: tarfile.TarFile, info: tarfile.TarInfo) -> None:
    if info.issym() or info.islnk():
        raise _link()
    if info.isdir():
        staging.add_directory(_tar_parts(info))
        return
    if info.type not in _REGULAR or info.issparse() or info.size < 0:
        raise Invalid(
            "The archive contains something that is no file or directory.", code="archive_special"
        )
    staging.add_file(_tar_parts(info), _tar_content(tar, info), executable=bool(info.mode & 0o100))


def _tar_parts(info: tarfile.TarInfo) -> Parts:
    return split_raw(info.name.encode("utf-8", "surrogateescape"), code=_NAME_CODE)


def _tar_content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> Iterator[bytes]:
    content = tar.extractfile(info)
    assert content is not None
    left = info.size
    while left:
        with _reading():
            chunk = content.read(min(CHUNK, left))
        if not chunk:
            raise damaged("The archive ends too early.")
        left -= len(chunk)
        yield chunk


# --- zip --------------------------------------------------------------------------------------


class _Bounded(io.RawIOBase):
    """A file of which no more is read at once than a directory of the allowed size takes.

    A zip's directory is read whole, and says itself how long it is.
    """

    def __init__(self, file: BinaryIO, limit: int) -> None:
        super().__init__()
        self._file = file
        self._limit = limit

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        if whence == os.SEEK_SET and offset < 0:
            raise damaged()
        return self._file.seek(offset, whence)

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(self._limit + 1 if size < 0 else min(size, self._limit + 1))
        if len(data) > self._limit:
            raise _too_many()
        return data


def _take_zip(staging: Staging, file: BinaryIO, limits: UploadLimits) -> None:
    packed = file.seek(0, os.SEEK_END)
    file.seek(0)
    bounded = _Bounded(file, 2 * CHUNK + limits.entries * _ZIP_ENTRY)
    with _reading(), zipfile.ZipFile(cast(BinaryIO, bounded)) as archive:
        infos = archive.infolist()
        _check_count(len(infos), limits)
        if sum(info.file_size for info in infos) > limits.total_bytes:
            raise TooLarge("The archive is too large.", code="archive_too_large")
        for info in infos:
            _take_zip_entry(staging, archive, info, packed, limits)


def _take_zip_entry(
    staging: Staging,
    archive: zipfile.ZipFile,
    info: zipfile.ZipInfo,
    packed: int,
    limits: UploadLimits,
) -> None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise _link()
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise Invalid(
            "The archive contains something that is no file or directory.", code="archive_special"
        )
    if info.flag_bits & _ENCRYPTED:
        raise Invalid("The archive is encrypted.", code="archive_encrypted")
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise Invalid(
            "The archive uses a compression other than deflate.", code="archive_unsupported"
        )
    # zipfile cuts a name at its first NUL; a backslash is a separator to some, a letter to others.
    if "\0" in info.orig_filename or "\\" in info.orig_filename:
        raise Invalid("A name in the archive contains NUL or '\\'.", code=_NAME_CODE)
    parts = split_raw(info.filename.encode(), code=_NAME_CODE)
    if info.is_dir() or kind == stat.S_IFDIR:
        staging.add_directory(parts)
        return
    executable = bool(info.external_attr >> 16 & stat.S_IXUSR)
    content = _zip_content(staging, archive, info, packed, limits)
    staging.add_file(parts, content, executable=executable)


def _zip_content(
    staging: Staging,
    archive: zipfile.ZipFile,
    info: zipfile.ZipInfo,
    packed: int,
    limits: UploadLimits,
) -> Iterator[bytes]:
    size = 0
    with archive.open(info) as content:
        while True:
            with _reading():
                chunk = content.read(CHUNK)
            if not chunk:
                break
            size += len(chunk)
            yield chunk
            check_ratio(staging.bytes, packed, limits)
    if size != info.file_size:
        raise damaged("The archive ends too early.")


def _check_count(count: int, limits: UploadLimits) -> None:
    if count > limits.entries:
        raise _too_many()


def _too_many() -> TooLarge:
    return TooLarge("The archive has too many entries.", code="archive_too_many_entries")


def _link() -> Invalid:
    return Invalid("The archive contains a link.", code="archive_link")
