"""What a test looks at."""

import os
from pathlib import Path


def names(path: Path) -> list[str]:
    """The names in a directory, in order."""
    return sorted(entry.name for entry in path.iterdir())


def raw_names(path: Path) -> list[bytes]:
    """The names in a directory as they are on the disk."""
    return sorted(os.fsencode(entry.name) for entry in path.iterdir())


def contents(path: Path) -> dict[str, str]:
    """Every file below, by its path."""
    return {
        str(file.relative_to(path)): file.read_text()
        for file in sorted(path.rglob("*"))
        if file.is_file() and not file.is_symlink()
    }


def descriptors() -> set[str]:
    """The file descriptors that this process has open."""
    found = {entry.name for entry in Path("/proc/self/fd").iterdir()}
    return {fd for fd in found if Path("/proc/self/fd", fd).is_symlink()}  # not the listing's own


def nest(path: Path, levels: int) -> None:
    """Nest directories deeper than any path can say."""
    fd = os.open(path, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
