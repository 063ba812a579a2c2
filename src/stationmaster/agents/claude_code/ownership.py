"""Files that change hands between the server (root) and an agent's own user id."""

import os
import stat
from pathlib import Path

PRIVATE = 0o700
SHARED = 0o755  # of a workspace that agents of the same project may read, each changing its part


def hand_over(top: Path, uid: int, ours: range, mode: int = PRIVATE) -> None:
    """Give `top` and all below it to `uid`; `mode` says whether others may look into `top`.

    `ours` are the user ids of agents. Only what is the server's or an agent's changes hands. A
    link is never followed; a file of the server's with a second name is left alone, because the
    other name may be a file of the system. May run while an agent of `uid` is at work there.
    """
    for _, directories, files, handle in os.fwalk(top, follow_symlinks=False):
        for name in [*directories, *files]:
            _give(name, handle, uid, ours)
    descriptor = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        os.fchown(descriptor, uid, uid)
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def take_back(top: Path, mode: int = PRIVATE) -> None:
    """Let no agent change `top`: the same user id will serve another session."""
    try:
        descriptor = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        # The session and its directory have been deleted.
        return
    try:
        os.fchown(descriptor, os.getuid(), os.getgid())
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def reachable(path: Path) -> bool:
    """Whether any user may walk to `path` and read it, as a user id of its own will have to."""
    for parent in path.parents:
        if not parent.stat().st_mode & stat.S_IXOTH:
            return False
    return bool(path.stat().st_mode & stat.S_IROTH)


def _give(name: str, handle: int, uid: int, ours: range) -> None:
    try:
        status = os.stat(name, dir_fd=handle, follow_symlinks=False)
    except FileNotFoundError:
        return
    if status.st_uid == uid:
        return
    servers = status.st_uid == os.getuid()
    second_name = stat.S_ISREG(status.st_mode) and status.st_nlink > 1
    if status.st_uid in ours or (servers and not second_name):
        try:
            os.chown(name, uid, uid, dir_fd=handle, follow_symlinks=False)
        except FileNotFoundError:
            return
