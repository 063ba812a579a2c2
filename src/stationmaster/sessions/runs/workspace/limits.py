"""What one operation on a workspace may cost. The other side of every number is hostile."""

from dataclasses import dataclass

_MIB = 1024**2


@dataclass(frozen=True, slots=True)
class WalkLimits:
    """Bounds of reading a tree. Past them a result says that it is not complete."""

    entries: int = 100_000
    depth: int = 100  # directories below the root; each holds one file descriptor while walking


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """Bounds of bringing files in. Past them everything of the upload is refused."""

    total_bytes: int = 256 * _MIB
    file_bytes: int = 128 * _MIB
    entries: int = 20_000  # files and directories together
    depth: int = 64  # parts of a path
    ratio: int = 200  # unpacked to packed; deflate reaches 1,030 for zeros, source code about 10
    ratio_floor_bytes: int = 32 * _MIB  # below this much unpacked no ratio is a bomb


@dataclass(frozen=True, slots=True)
class DownloadLimits:
    """Bounds of taking files out. A sparse file counts with its apparent size."""

    total_bytes: int = 4 * 1024 * _MIB
    walk: WalkLimits = WalkLimits()


@dataclass(frozen=True, slots=True)
class SnapshotLimits:
    """Bounds of remembering a tree. Larger or later files are compared by their stat alone."""

    digest_file_bytes: int = 64 * 1024
    digest_total_bytes: int = 32 * _MIB
    walk: WalkLimits = WalkLimits()


@dataclass(frozen=True, slots=True)
class DiffLimits:
    """Bounds of keeping a baseline and of writing a diff against it."""

    file_bytes: int = 256 * 1024
    total_bytes: int = 64 * _MIB
    files: int = 5_000
    output_bytes: int = 16 * _MIB
    effort: int = 20_000_000  # line comparisons for one whole diff; a few seconds of one core
    snapshot: SnapshotLimits = SnapshotLimits()
