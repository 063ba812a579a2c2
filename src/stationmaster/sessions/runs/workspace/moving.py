"""Moving what a server has prepared from one workspace into another, as it is."""

import os

from stationmaster.sessions.runs.workspace.tree import Tree, typed_errors

_ROOT = (0, 0)


def move_contents(source: Tree, target: Tree) -> None:
    """Move everything in `source` into `target`, where nothing has those names.

    No agent has ever reached `source`; in `target` one may be waiting, and what is moved becomes
    its own. Both are on one file system. Raises as `typed_errors`.
    """
    with typed_errors():
        if os.geteuid() == 0 and target.owner != _ROOT:
            _hand_over(source, *target.owner)
        for name in os.listdir(source.fd):  # noqa: PTH208 - of an open directory
            os.rename(name, name, src_dir_fd=source.fd, dst_dir_fd=target.fd)


def _hand_over(tree: Tree, uid: int, gid: int) -> None:
    for _, directories, files, handle in os.fwalk(".", dir_fd=tree.fd, follow_symlinks=False):
        for name in (*directories, *files):
            os.chown(name, uid, gid, dir_fd=handle, follow_symlinks=False)
