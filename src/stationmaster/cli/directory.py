"""Sending a directory of the person's own along with a task."""

import hashlib
import io
import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from stationmaster.cli.exits import CommandError, Exit
from stationmaster.cli.printing import count_of, safe, size

MAX_TOTAL_BYTES = 100 * 1024**2  # what a server takes unless it is configured otherwise
MAX_FILES = 20_000
_GIT_SECONDS = 60


@dataclass(slots=True)
class Packed:
    """A directory as a tar.gz. `sent` has each file's SHA-256, by its path."""

    archive: BinaryIO
    total: int = 0
    by_git: bool = False
    sent: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)

    def describe(self) -> str:
        """One sentence for the person."""
        chosen = " that git does not ignore" if self.by_git else ""
        left = f"; {len(self.left)} left out ({self._reasons()})" if self.left else ""
        return f"{count_of(len(self.sent), 'file')}{chosen}, {size(self.total)}{left}"

    def _reasons(self) -> str:
        return ", ".join(sorted(set(self.left.values())))


@contextmanager
def pack(directory: Path) -> Iterator[Packed]:
    """Pack the regular files below `directory`: those that git does not ignore, if it is git's.

    Links and special files are left out, and so is `.git`. Raises `CommandError` where it is too
    much to send.
    """
    if not directory.is_dir():
        raise CommandError(f"{directory} is not a directory.", Exit.INVALID)
    listed = _listed_by_git(directory)
    with tempfile.TemporaryFile() as file:
        packed = Packed(file, by_git=listed is not None)
        with tarfile.open(fileobj=file, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
            for path in sorted(listed if listed is not None else _walk(directory)):
                _add(tar, directory, path, packed)
        file.seek(0)
        yield packed


def _listed_by_git(directory: Path) -> list[str] | None:
    git = shutil.which("git")
    if git is None:
        return None
    done = subprocess.run(  # noqa: S603 - a fixed command; the directory is its working one
        # A repository's own settings could make git run a program.
        [
            *(git, "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"),
            *("ls-files", "-z", "--cached", "--others", "--exclude-standard"),
        ],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_GIT_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        return None
    return list({os.fsdecode(name) for name in done.stdout.split(b"\0") if name})


def _walk(directory: Path) -> Iterator[str]:
    for here, directories, names in os.walk(directory):
        if ".git" in directories:
            directories.remove(".git")
        below = Path(here).relative_to(directory)
        yield from (str(below / name) for name in names)
        # os.walk does not descend into links, nor list them among the files.
        yield from (str(below / name) for name in directories if Path(here, name).is_symlink())


def _add(tar: tarfile.TarFile, directory: Path, path: str, packed: Packed) -> None:
    try:
        descriptor = os.open(
            directory / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        )
    except FileNotFoundError:  # deleted, but git still knows it
        return
    except OSError as error:
        packed.left[path] = (
            "links" if (directory / path).is_symlink() else (error.strerror or "errors")
        )
        return
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            if not stat.S_ISDIR(status.st_mode):
                packed.left[path] = "not regular files"
            return
        content = file.read(MAX_TOTAL_BYTES - packed.total + 1)
    packed.total += len(content)
    if packed.total > MAX_TOTAL_BYTES or len(packed.sent) >= MAX_FILES:
        raise CommandError(
            f"{safe(directory)} holds more than {size(MAX_TOTAL_BYTES)} or {MAX_FILES:,} files;"
            " send a smaller directory, or ignore what is not needed with git.",
            Exit.INVALID,
        )
    info = tarfile.TarInfo(path)
    info.size, info.mode, info.mtime = len(content), stat.S_IMODE(status.st_mode), status.st_mtime
    tar.addfile(info, io.BytesIO(content))
    packed.sent[path] = hashlib.sha256(content).hexdigest()
