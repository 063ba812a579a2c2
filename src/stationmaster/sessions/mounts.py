"""Stored files on their way into a session's workspace: where to, how many, how large."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from stationmaster.files import Files, StoredFile
from stationmaster.kernel.clock import Clock
from stationmaster.kernel.errors import Conflict, Invalid, NotFound, TooLarge
from stationmaster.kernel.ids import new_id
from stationmaster.kernel.principal import Principal
from stationmaster.sessions.checks import bounded
from stationmaster.sessions.runs.workspace import UploadedFile
from stationmaster.sessions.runs.workspace.names import MAX_PATH, join, split
from stationmaster.sessions.session import Mount

MAX_RESOURCES = 100  # of one session
UPLOADS = "/mnt/session/uploads"  # where the API puts a file that is given no path
READ_ONLY = 0o400

# What an agent sees at these paths is its workspace, or a directory in it.
_ROOTS = (("/workspace", ""), ("/project", ""), ("/mnt/session", "mnt/session"))


@dataclass(frozen=True, slots=True)
class Mounting:
    """Files that are open to be copied, and the resources that they become.

    A resource has `id`, `file_id`, `mount_path`, `path` (in the workspace), `size` in bytes and
    `created_at` in milliseconds.
    """

    resources: tuple[dict[str, Any], ...] = ()
    files: tuple[UploadedFile, ...] = ()

    @property
    def size(self) -> int:
        """Of the files together, in bytes."""
        return sum(each["size"] for each in self.resources)


class Mounts:
    """Finds what is to be mounted, and holds it to the bounds of a workspace."""

    def __init__(self, stored: Files, clock: Clock, *, quota: int) -> None:
        """`quota` is what one workspace may hold, in bytes."""
        self._stored = stored
        self._clock = clock
        self._quota = quota

    def quota(self, principal: Principal) -> int:
        """What a workspace may hold for this caller, in bytes."""
        profile = principal.profile
        if profile is None or profile.workspace_bytes is None:
            return self._quota
        return min(self._quota, profile.workspace_bytes)

    @asynccontextmanager
    async def opened(
        self,
        principal: Principal,
        wanted: Sequence[Mount],
        present: Sequence[Mapping[str, Any]] = (),
        *,
        at: str = "",
    ) -> AsyncIterator[Mounting]:
        """Open the files that are wanted, beside those `present`; closed at the end.

        Needs the scope `read:files`. Raises `NotFound` for a file that is not the project's,
        `Invalid`, `Conflict` and `TooLarge`, with `param` below `at`.
        """
        made: list[dict[str, Any]] = []
        files: list[UploadedFile] = []
        with ExitStack() as stack:
            for index, mount in enumerate(wanted):
                here = f"{at}.{index}." if at else ""
                file, content = await self._open(principal, mount.file_id, f"{here}file_id")
                stack.enter_context(content)
                mount_path, path = place_of_mount(mount, f"{here}mount_path")
                resource = {
                    "id": new_id("sesrsc"),
                    "file_id": file.id,
                    "mount_path": mount_path,
                    "path": path,
                    "size": file.size,
                    "created_at": self._clock.now(),
                }
                check_free([*present, *made], resource, f"{here}mount_path")
                made.append(resource)
                files.append(UploadedFile(path, content, READ_ONLY))
            self._check_size(principal, [*present, *made], at or "file_id")
            yield Mounting(tuple(made), tuple(files))

    async def _open(
        self, principal: Principal, file_id: str, param: str
    ) -> tuple[StoredFile, BinaryIO]:
        try:
            return await self._stored.open(principal, file_id)
        except NotFound as error:
            raise NotFound(error.message, code=error.error_code, param=param) from None

    def _check_size(
        self, principal: Principal, resources: Sequence[Mapping[str, Any]], param: str
    ) -> None:
        quota = self.quota(principal)
        if sum(each["size"] for each in resources) > quota:
            raise TooLarge(
                f"The files are larger than a workspace may be: {quota} bytes.",
                code="workspace_too_large",
                param=param,
            )


def check_free(
    present: Sequence[Mapping[str, Any]], resource: Mapping[str, Any], param: str
) -> None:
    """Raise `Conflict` where a session can take no more, or has a file at this path already."""
    if len(present) >= MAX_RESOURCES:
        raise Conflict(
            f"A session has at most {MAX_RESOURCES} resources.", code="too_many_resources"
        )
    path = resource["path"]
    for other in present:
        # One cannot lie below another: a file is no directory.
        if f"{path}/".startswith(f"{other['path']}/") or f"{other['path']}/".startswith(f"{path}/"):
            raise Conflict(
                f"There is a file at {other['mount_path']!r} already.",
                code="mount_path_taken",
                param=param,
            )


def place_of_mount(mount: Mount, param: str) -> tuple[str, str]:
    """The path that the agent sees, and the one in the workspace. Raises `Invalid`.

    A mount without a path is put below `UPLOADS`, under the file's id.
    """
    wanted = f"{UPLOADS}/{mount.file_id}" if mount.mount_path is None else mount.mount_path
    wanted = bounded(wanted, MAX_PATH, param, least=1)
    for root, inside in _ROOTS:
        if not wanted.startswith(f"{root}/"):
            continue
        parts = split(wanted.removeprefix(root).lstrip("/"), code="mount_path_invalid", param=param)
        if parts:
            path = join(parts)
            return f"{root}/{path}", f"{inside}/{path}" if inside else path
    raise Invalid(
        f"A file is mounted below /workspace or {UPLOADS}.", code="mount_path_invalid", param=param
    )


def told_of(system: str | None, resources: Sequence[Mapping[str, Any]]) -> str | None:
    """A system prompt that also says which files there are."""
    if not resources:
        return system
    lines = ["These files were put into your working directory, for you to read:"]
    lines += [f"- {each['path']} ({each['mount_path']})" for each in resources]
    told = "\n".join(lines)
    return told if system is None else f"{system}\n\n{told}"
