"""Bringing back what a task changed."""

import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import BinaryIO, cast

from stationmaster.cli.destination import Destination, Refused
from stationmaster.cli.exits import CommandError, Exit
from stationmaster.cli.printing import count_of, safe, say, warn
from stationmaster.client import Artifact, Client

_EXECUTABLE = 0o100


@dataclass(slots=True)
class Outcome:
    """What became of each file: what was done, and why some were left."""

    done: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)

    def tell(self, where: str, *, quiet: bool = False) -> None:
        """Tell the person; raises `CommandError` where files were left. `quiet` tells only that."""
        if not quiet:
            count = count_of(len(self.done), "file")
            say(f"{count} brought to {safe(where)}." if self.done else "Nothing was written.")
        for path, reason in self.left.items():
            warn(f"left: {safe(path)}: {safe(reason)}")
        if self.left:
            raise CommandError(f"{count_of(len(self.left), 'file')} not written.", Exit.INVALID)


class Archive:
    """A task's files, downloaded."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write_to(self, destination: Destination, artifacts: Sequence[Artifact]) -> Outcome:
        """Write every file that the task created or modified."""
        return self._write(destination, artifacts, None)

    def apply_to(
        self, destination: Destination, artifacts: Sequence[Artifact], sent: Mapping[str, str]
    ) -> Outcome:
        """Do to the directory what the task did to its copy.

        `sent` has the SHA-256 of each file as it was sent. One that has changed since is left.
        """
        outcome = self._write(destination, artifacts, sent)
        for artifact in artifacts:
            if artifact.change == "deleted" and artifact.path in sent:
                try:
                    check_unchanged(destination, artifact.path, sent)
                    destination.remove(artifact.path)
                    outcome.done.append(f"deleted   {artifact.path}")
                except Refused as reason:
                    outcome.left[artifact.path] = str(reason)
        return outcome

    def _write(
        self,
        destination: Destination,
        artifacts: Sequence[Artifact],
        sent: Mapping[str, str] | None,
    ) -> Outcome:
        outcome = Outcome()
        wanted = {
            artifact.path: artifact
            for artifact in artifacts
            if artifact.change != "deleted" and artifact.type == "file"
        }
        for path in [item.path for item in artifacts if item.type not in {"file", "directory"}]:
            outcome.left[path] = "it is not a regular file"
        for path, content, executable in self._members():
            artifact = wanted.pop(path, None)
            if artifact is None:
                continue
            try:
                if sent is not None:
                    check_unchanged(destination, path, sent)
                destination.write(path, content, executable=executable)
                outcome.done.append(f"{artifact.change:9} {path}")
            except Refused as reason:
                outcome.left[path] = str(reason)
        outcome.left |= dict.fromkeys(wanted, "the server did not send it")
        return outcome

    def _members(self) -> Iterator[tuple[str, BinaryIO, bool]]:
        self._file.seek(0)
        try:
            # Only the names and contents are used: nothing is unpacked by tarfile itself.
            with tarfile.open(fileobj=self._file, mode="r:gz") as tar:
                for member in tar:
                    content = tar.extractfile(member) if member.isreg() else None
                    if content is not None:
                        name = str(PurePosixPath(member.name))
                        yield name, cast(BinaryIO, content), bool(member.mode & _EXECUTABLE)
        except (tarfile.TarError, EOFError, OSError) as error:
            raise CommandError(
                f"The task's files came damaged: {error}.", Exit.UNAVAILABLE
            ) from error


def check_unchanged(destination: Destination, path: str, sent: Mapping[str, str]) -> None:
    """Raise `Refused` where the file is not as it was sent (or not absent as it was)."""
    present = destination.digest(path)
    if present != sent.get(path):
        reason = "it has changed here since" if path in sent else "there is a file of this name"
        raise Refused(reason)


@contextmanager
def fetch(client: Client, task_id: str) -> Iterator[Archive]:
    """Download the files of a task."""
    with tempfile.TemporaryFile() as file:
        client.archive(task_id, file)
        yield Archive(file)
