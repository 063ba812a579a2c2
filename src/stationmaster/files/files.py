"""The verbs on stored files."""

import asyncio
import mimetypes
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

import structlog
from sqlalchemy import Row, delete, insert, select, update

# Its ON CONFLICT is SQLite's too.
from sqlalchemy.dialects.postgresql import insert as upsert

from stationmaster.files.depot import Depot
from stationmaster.files.tables import file_usage, files
from stationmaster.kernel.clock import Clock, Millis
from stationmaster.kernel.errors import Exhausted, Invalid, NotFound, StationmasterError
from stationmaster.kernel.ids import check_id, new_id
from stationmaster.kernel.paging import Page
from stationmaster.kernel.principal import Owner, Principal
from stationmaster.kernel.text import scrub
from stationmaster.storage import Database, Transaction

log = structlog.get_logger(__name__)

MAX_NAME = 255  # characters
MIN_LIFE_S, MAX_LIFE_S = 3600, 7_776_000  # an hour, ninety days
SWEEP_AT_ONCE = 500  # expired files deleted in one transaction
ANY_TYPE = "application/octet-stream"

_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file. Its bytes never change; after `expires_at` they cannot be had."""

    id: str
    owner: Owner
    name: str
    media_type: str
    size: int
    sha256: str
    purpose: str
    scope_id: str | None
    created_at: Millis
    expires_at: Millis | None


@dataclass(frozen=True, slots=True)
class NewFile:
    """What is to be stored, and what is said of it. `media_type` None: told by the name."""

    name: str | None
    media_type: str | None
    content: BinaryIO
    purpose: str = "upload"
    scope_id: str | None = None
    lives_for: int | None = None  # seconds; None: for ever


class Files:
    """Upload, show, list, read, delete.

    A row is never without its bytes: they come first and go last. Bytes that a crash has left
    without a row are deleted by `sweep`.
    """

    def __init__(
        self, database: Database, clock: Clock, depot: Depot, *, max_size: int, quota: int
    ) -> None:
        """`max_size` and `quota`, of one file and of a project's together, are in bytes."""
        self._database = database
        self._clock = clock
        self._depot = depot
        self._max_size = max_size
        self._quota = quota
        self._entering: set[asyncio.Task[StoredFile]] = set()

    async def upload(self, principal: Principal, new: NewFile) -> StoredFile:
        """Store a file of the caller's project.

        Raises `Invalid` for its name, type or life, `TooLarge`, `Exhausted`
        (`storage_quota_exceeded`), `Unavailable`; then nothing is left of it.
        """
        principal.require("write:files")
        name, media_type = _describe(new)
        if new.lives_for is not None and not MIN_LIFE_S <= new.lives_for <= MAX_LIFE_S:
            raise Invalid(
                f"expires_in_seconds must be between {MIN_LIFE_S} and {MAX_LIFE_S}.",
                param="expires_in_seconds",
            )
        # A caller that goes away must leave neither bytes without a row nor a row without bytes.
        entering = asyncio.ensure_future(self._enter(principal, new, name, media_type))
        self._entering.add(entering)
        entering.add_done_callback(self._entered)
        return await asyncio.shield(entering)

    def _entered(self, entering: "asyncio.Task[StoredFile]") -> None:
        self._entering.discard(entering)
        if not entering.cancelled():
            entering.exception()  # where the caller is gone nobody else asks for it

    async def _enter(
        self, principal: Principal, new: NewFile, name: str, media_type: str
    ) -> StoredFile:
        file_id = new_id("file")
        put = partial(self._depot.put, file_id, new.content, limit=self._max_size)
        stored = await asyncio.to_thread(put)
        now = self._clock.now()
        file = StoredFile(
            id=file_id,
            owner=principal.owner,
            name=name,
            media_type=media_type,
            size=stored.size,
            sha256=stored.sha256,
            purpose=new.purpose,
            scope_id=new.scope_id,
            created_at=now,
            expires_at=None if new.lives_for is None else now + new.lives_for * 1000,
        )
        try:
            return await self._database.write(lambda tx: self._add(tx, file, principal.key_id))
        except StationmasterError as error:
            # Where the outcome is unknown the row may be there, and need its bytes.
            if error.error_code != "commit_unknown":
                await asyncio.to_thread(self._depot.remove, file_id)
            raise

    def _add(self, tx: Transaction, file: StoredFile, key_id: str) -> StoredFile:
        owner = file.owner
        empty = {
            "project_id": owner.project_id,
            "organization_id": owner.organization_id,
            "size": 0,
        }
        tx.execute(upsert(file_usage).on_conflict_do_nothing(), empty)
        fits = tx.execute(
            update(file_usage)
            .where(
                file_usage.c.project_id == owner.project_id,
                file_usage.c.size + file.size <= self._quota,
            )
            .values(size=file_usage.c.size + file.size)
        )
        if fits.rowcount != 1:
            raise Exhausted(
                f"The project's files may take {self._quota} bytes together. Delete some first.",
                code="storage_quota_exceeded",
            )
        tx.execute(insert(files), {**_columns(file), "key_id": key_id})
        return file

    async def get(self, principal: Principal, file_id: str) -> StoredFile:
        """One file. Raises `NotFound`, also for another project's, and once it has expired."""
        principal.require("read:files")
        check_id(file_id, "file")
        return await self._database.read(lambda tx: self.find(tx, principal.owner, file_id))

    def find(self, tx: Transaction, owner: Owner, file_id: str) -> StoredFile:
        """See `get`; inside a transaction, and for callers that have checked the right."""
        row = tx.execute(select(files).where(files.c.id == file_id, *_of(owner))).first()
        if row is None:
            raise NotFound("There is no file with this id.", code="file_not_found")
        file = _file(row)
        if file.expires_at is not None and file.expires_at <= self._clock.now():
            raise NotFound("The file has expired.", code="file_expired")
        return file

    async def list(
        self,
        principal: Principal,
        *,
        limit: int,
        after: str | None = None,
        ids: Sequence[str] | None = None,
        scope_id: str | None = None,
        purpose: str | None = None,
    ) -> Page[StoredFile]:
        """The project's files, newest first. With `ids`, those of them that there are."""
        principal.require("read:files")
        now = self._clock.now()
        query = (
            select(files)
            .where(*_of(principal.owner), files.c.expires_at.is_(None) | (files.c.expires_at > now))
            .order_by(files.c.id.desc())
            .limit(limit + 1)
        )
        if ids is not None:
            query = query.where(files.c.id.in_(ids))
        if scope_id is not None:
            query = query.where(files.c.scope_id == scope_id)
        if purpose is not None:
            query = query.where(files.c.purpose == purpose)
        if after is not None:
            query = query.where(files.c.id < check_id(after, "file"))
        rows = await self._database.browse(lambda tx: tx.execute(query).all())
        items = [_file(row) for row in rows[:limit]]
        return Page(items, items[-1].id if len(rows) > limit else None)

    async def open(self, principal: Principal, file_id: str) -> tuple[StoredFile, BinaryIO]:
        """A file and its content, to be closed by the caller."""
        file = await self.get(principal, file_id)
        return file, await asyncio.to_thread(self._depot.open, file_id)

    def content(self, file_id: str) -> BinaryIO:
        """Open the bytes of a file that was found. Blocks: call it in a thread."""
        return self._depot.open(check_id(file_id, "file"))

    async def delete(self, principal: Principal, file_id: str) -> None:
        """Delete a file for good. Raises `NotFound`, a second time too."""
        principal.require("write:files")
        check_id(file_id, "file")

        def verb(tx: Transaction) -> None:
            row = tx.execute(
                select(files).where(files.c.id == file_id, *_of(principal.owner)).with_for_update()
            ).first()
            if row is None:
                raise NotFound("There is no file with this id.", code="file_not_found")
            _drop(tx, [row])

        await self._database.write(verb)
        await asyncio.to_thread(self._depot.remove, file_id)

    async def sweep(self) -> int:
        """Delete what has expired and what crashes have left; return how many. Idempotent."""
        gone = 0
        while expired := await self._database.write(self._drop_expired):
            gone += await asyncio.to_thread(self._depot.discard, expired)
        for names in await asyncio.to_thread(lambda: list(self._depot.old())):
            known = await self._database.read(partial(_known, names=names))
            gone += await asyncio.to_thread(self._depot.discard, set(names) - known)
        if gone:
            log.info("Files that nobody can reach were deleted.", files=gone)
        return gone

    def _drop_expired(self, tx: Transaction) -> Sequence[str]:
        rows = tx.execute(
            select(files)
            .where(files.c.expires_at <= self._clock.now())
            .order_by(files.c.id)
            .limit(SWEEP_AT_ONCE)
            .with_for_update(skip_locked=True)
        ).all()
        _drop(tx, rows)
        return [row.id for row in rows]


def _describe(new: NewFile) -> tuple[str, str]:
    """The name and type to keep: of a path its last part, of an unknown type a guess."""
    name = re.split(r"[/\\]", new.name or "")[-1].strip()
    if len(name) > MAX_NAME or _CONTROL.search(name) or not _is_text(name):
        raise Invalid(
            f"A file's name must be at most {MAX_NAME} characters, without control characters.",
            code="file_name",
            param="file",
        )
    given = (new.media_type or "").partition(";")[0].strip().lower()
    if given and _MEDIA_TYPE.fullmatch(given) is None:
        raise Invalid("The file's Content-Type is not one.", code="file_type", param="file")
    media_type = given or mimetypes.guess_type(name, strict=False)[0] or ANY_TYPE
    return name or "unnamed" + (mimetypes.guess_extension(media_type) or ""), media_type


def _is_text(name: str) -> bool:
    return name.isascii() or scrub(name) == name


def _of(owner: Owner) -> tuple[Any, Any]:
    return (
        files.c.organization_id == owner.organization_id,
        files.c.project_id == owner.project_id,
    )


def _drop(tx: Transaction, rows: Sequence[Row[Any]]) -> None:
    freed: dict[str, int] = {}
    for row in rows:
        freed[row.project_id] = freed.get(row.project_id, 0) + row.size
    for project_id in sorted(freed):
        tx.execute(
            update(file_usage)
            .where(file_usage.c.project_id == project_id)
            .values(size=file_usage.c.size - freed[project_id])
        )
    if rows:
        tx.execute(delete(files).where(files.c.id.in_([row.id for row in rows])))


def _known(tx: Transaction, names: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for start in range(0, len(names), SWEEP_AT_ONCE):
        part = names[start : start + SWEEP_AT_ONCE]
        found |= set(tx.execute(select(files.c.id).where(files.c.id.in_(part))).scalars())
    return found


def _columns(file: StoredFile) -> dict[str, Any]:
    return {
        "id": file.id,
        "organization_id": file.owner.organization_id,
        "project_id": file.owner.project_id,
        "name": file.name,
        "media_type": file.media_type,
        "size": file.size,
        "sha256": file.sha256,
        "purpose": file.purpose,
        "scope_id": file.scope_id,
        "created_at": file.created_at,
        "expires_at": file.expires_at,
    }


def _file(row: Row[Any]) -> StoredFile:
    return StoredFile(
        id=row.id,
        owner=Owner(row.organization_id, row.project_id),
        name=row.name,
        media_type=row.media_type,
        size=row.size,
        sha256=row.sha256,
        purpose=row.purpose,
        scope_id=row.scope_id,
        created_at=row.created_at,
        expires_at=row.expires_at,
    )
