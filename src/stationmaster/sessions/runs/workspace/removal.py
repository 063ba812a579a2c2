"""Deleting a directory that somebody hostile has filled."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PASSES = 8  # over one directory, while something goes on filling it


def remove_below(pit: int, name: bytes) -> int:
    """Delete the directory or file `name` in the open directory `pit`; return how much is left.

    No link is followed. Each sub-directory is first moved up into `pit`, which must be ours alone,
    so that any depth of nesting is deleted with two open descriptors and short paths. Unreadable
    directories are made readable by handle. What cannot be deleted is counted and skipped.
    """
    pending = [name]
    left = 0
    while pending:
        left += _remove_one(pit, pending.pop(), pending)
    return left


def _remove_one(pit: int, name: bytes, pending: list[bytes]) -> int:
    try:
        fd = _open_writable(pit, name)
    except FileNotFoundError:
        return 0
    except NotADirectoryError:
        return 0 if _unlink(pit, name) else 1
    except OSError:
        return 1
    try:
        stuck = 0
        for _ in range(_PASSES):
            found, stuck = _empty(pit, fd, pending)
            if found == stuck:
                break
    finally:
        os.close(fd)
    try:
        os.rmdir(name, dir_fd=pit)
    except FileNotFoundError:
        return 0
    except OSError:
        return stuck + 1
    return 0


def _empty(pit: int, fd: int, pending: list[bytes]) -> tuple[int, int]:
    """Unlink the files of one directory, move its directories to the pit; count (found, stuck)."""
    found = stuck = 0
    with os.scandir(fd) as entries:
        for entry in entries:
            found += 1
            name = os.fsencode(entry.name)
            if not entry.is_dir(follow_symlinks=False):
                stuck += not _unlink(fd, name)
                continue
            try:
                pending.append(move_away(fd, name, pit))
            except FileNotFoundError:
                continue
            except OSError:
                stuck += 1
    return found, stuck


def _unlink(fd: int, name: bytes) -> bool:
    try:
        os.unlink(name, dir_fd=fd)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def move_away(fd: int, name: bytes, pit: int) -> bytes:
    """Move `name` of the open directory `fd` into `pit`; return its new name. Raises `OSError`."""
    moved = b"." + secrets.token_hex(8).encode()
    try:
        os.rename(name, moved, src_dir_fd=fd, dst_dir_fd=pit)
    except PermissionError:
        # Moving a directory writes its "..", for which it must be writable itself.
        os.close(_open_writable(fd, name))
        os.rename(name, moved, src_dir_fd=fd, dst_dir_fd=pit)
    return moved


def _open_writable(fd: int, name: bytes) -> int:
    """Open a directory for listing, and make it listable and writable where it is ours."""
    try:
        found = os.open(name, _OPEN, dir_fd=fd)
    except PermissionError:
        # By handle: a chmod by name would follow a link swapped in for the directory.
        handle = os.open(name, _OPEN | os.O_PATH, dir_fd=fd)
        try:
            Path(f"/proc/self/fd/{handle}").chmod(0o700)
        finally:
            os.close(handle)
        found = os.open(name, _OPEN, dir_fd=fd)
    with suppress(OSError):
        os.fchmod(found, 0o700)
    return found
