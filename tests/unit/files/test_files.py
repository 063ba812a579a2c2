import asyncio
import io
import os
import signal
import sys
from pathlib import Path

import pytest
from sqlalchemy import func, select

from stationmaster.files import Depot, Files
from stationmaster.files.depot import STALE_SECONDS
from stationmaster.files.files import NewFile
from stationmaster.files.tables import file_usage, files
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.errors import (
    Denied,
    Exhausted,
    Invalid,
    NotFound,
    StationmasterError,
    TooLarge,
    Unavailable,
)
from stationmaster.kernel.principal import Owner, Principal
from stationmaster.storage import Database, Transaction
from tests.support.core import ALICE, principal
from tests.support.databases import Databases

MAX_SIZE, QUOTA = 1000, 2500
STRANGER = principal("mallory", Owner("org_2", "proj_2"))
GONE = "file_01jd3k00000000000000000000"


class House:
    def __init__(self, database: Database, root: Path) -> None:
        self.database = database
        self.root = root
        self.clock = ManualClock()
        self.depot = Depot(root)
        self.files = Files(database, self.clock, self.depot, max_size=MAX_SIZE, quota=QUOTA)

    async def upload(
        self, content: bytes = b"hello", name: str | None = "a.txt", **more: object
    ) -> str:
        new = NewFile(name, more.pop("media_type", None), io.BytesIO(content), **more)  # type: ignore[arg-type]
        return (await self.files.upload(ALICE, new)).id

    async def read(self, file_id: str) -> bytes:
        _, content = await self.files.open(ALICE, file_id)
        with content:
            return content.read()

    def on_disk(self) -> set[str]:
        return {path.name for path in self.root.rglob("*") if path.is_file()}

    async def check(self) -> None:
        """What a project is said to use is what its files are, and each has its bytes."""

        def both(tx: Transaction) -> tuple[int, int, set[str]]:
            said = tx.execute(select(func.coalesce(func.sum(file_usage.c.size), 0))).scalar_one()
            rows = tx.execute(select(files.c.id, files.c.size)).all()
            return int(said), sum(row.size for row in rows), {row.id for row in rows}

        said, found, ids = await self.database.read(both)
        assert said == found
        assert ids <= self.on_disk()


@pytest.fixture
def house(database: Database, tmp_path: Path) -> House:
    return House(database, tmp_path / "files")


async def test_a_file_comes_back_as_it_was(house: House) -> None:
    content = bytes(range(256)) * 3
    file_id = await house.upload(content, "dir/report.pdf")
    file = await house.files.get(ALICE, file_id)
    assert (file.name, file.media_type, file.size) == ("report.pdf", "application/pdf", 768)
    assert file.created_at == house.clock.now()
    assert await house.read(file_id) == content
    await house.check()


@pytest.mark.parametrize(
    ("name", "given", "kept", "media_type"),
    [
        ("a.png", None, "a.png", "image/png"),
        ("a.png", "text/plain", "a.png", "text/plain"),
        (None, "application/pdf", "unnamed.pdf", "application/pdf"),
        ("", None, "unnamed.bin", "application/octet-stream"),
        ("..\\..\\evil.txt", None, "evil.txt", "text/plain"),
        ("a.txt", "Text/Plain; charset=utf-8", "a.txt", "text/plain"),
        ("x" * 255, None, "x" * 255, "application/octet-stream"),
    ],
)
async def test_what_is_kept_of_name_and_type(
    house: House, name: str | None, given: str | None, kept: str, media_type: str
) -> None:
    file = await house.files.get(ALICE, await house.upload(b"", name, media_type=given))
    assert (file.name, file.media_type) == (kept, media_type)


@pytest.mark.parametrize(
    ("fields", "kind", "code"),
    [
        ({"name": "a\0b"}, Invalid, "file_name"),
        ({"name": "x" * 256}, Invalid, "file_name"),
        ({"name": "a\ud800"}, Invalid, "file_name"),
        ({"media_type": "no type"}, Invalid, "file_type"),
        ({"media_type": "text/" + "x" * 300}, Invalid, "file_type"),
        ({"lives_for": 3599}, Invalid, "invalid_request"),
        ({"lives_for": 7_776_001}, Invalid, "invalid_request"),
        ({"content": b"x" * 1001}, TooLarge, "file_too_large"),
    ],
)
async def test_a_wrong_upload_leaves_nothing(
    house: House, fields: dict[str, object], kind: type[StationmasterError], code: str
) -> None:
    with pytest.raises(kind) as caught:
        await house.upload(**fields)  # type: ignore[arg-type]
    assert caught.value.error_code == code
    assert house.on_disk() == set()
    assert (await house.files.list(ALICE, limit=10)).items == []
    await house.check()


async def test_the_quota_holds_for_uploads_at_once(house: House) -> None:
    done = await asyncio.gather(
        *(house.upload(b"x" * 1000) for _ in range(6)), return_exceptions=True
    )
    kept = [item for item in done if isinstance(item, str)]
    refused = [item for item in done if isinstance(item, Exhausted)]
    assert (len(kept), len(refused)) == (2, 4)
    assert {item.error_code for item in refused} == {"storage_quota_exceeded"}
    assert house.on_disk() == set(kept)
    await house.check()
    await house.files.delete(ALICE, kept[0])
    await house.upload(b"y" * 1000)
    await house.check()


async def test_a_file_is_its_projects_alone(house: House) -> None:
    file_id = await house.upload()
    for attempt in (
        house.files.get(STRANGER, file_id),
        house.files.open(STRANGER, file_id),
        house.files.delete(STRANGER, file_id),
        house.files.get(ALICE, GONE),
        house.files.get(ALICE, "../../etc/passwd"),
        house.files.delete(ALICE, GONE),
    ):
        with pytest.raises(NotFound):
            await attempt
    assert (await house.files.list(STRANGER, limit=10)).items == []
    assert (await house.files.list(STRANGER, limit=10, ids=[file_id])).items == []
    assert await house.read(file_id) == b"hello"


async def test_a_key_without_the_right_is_refused(house: House) -> None:
    poor = Principal("key", "key_1", ALICE.owner, "key_1", frozenset({"write:tasks"}))
    for attempt in (
        house.files.upload(poor, NewFile("a", None, io.BytesIO(b""))),
        house.files.list(poor, limit=1),
        house.files.get(poor, GONE),
        house.files.delete(poor, GONE),
    ):
        with pytest.raises(Denied):
            await attempt
    assert house.on_disk() == set()


async def test_pages_and_filters(house: House) -> None:
    made = [await house.upload(name=f"{n}", scope_id="sesn_1" if n % 2 else None) for n in range(5)]
    seen, after = [], None
    while True:
        page = await house.files.list(ALICE, limit=2, after=after)
        seen += [file.id for file in page.items]
        after = page.next_cursor
        if after is None:
            break
    assert seen == made[::-1]
    scoped = await house.files.list(ALICE, limit=10, scope_id="sesn_1")
    assert [file.name for file in scoped.items] == ["3", "1"]
    some = await house.files.list(ALICE, limit=10, ids=[made[0], GONE, made[4]])
    assert [file.id for file in some.items] == [made[4], made[0]]


async def test_deleting_is_for_good(house: House) -> None:
    file_id = await house.upload()
    await house.files.delete(ALICE, file_id)
    with pytest.raises(NotFound):
        await house.files.delete(ALICE, file_id)
    assert house.on_disk() == set()
    await house.check()


async def test_an_expired_file_cannot_be_had_and_is_swept(house: House) -> None:
    brief, lasting = await house.upload(lives_for=3600), await house.upload()
    house.clock.advance(3599)
    assert await house.read(brief) == b"hello"
    house.clock.advance(1)
    with pytest.raises(NotFound) as caught:
        await house.files.open(ALICE, brief)
    assert caught.value.error_code == "file_expired"
    assert [file.id for file in (await house.files.list(ALICE, limit=9)).items] == [lasting]
    assert await house.files.sweep() == 1
    assert house.on_disk() == {lasting}
    assert await house.files.sweep() == 0
    await house.check()


async def test_what_a_crash_left_is_swept_and_nothing_else(house: House) -> None:
    """Killed between the bytes and the row, or in the midst of the bytes."""
    kept = await house.upload()
    house.depot.put(GONE, io.BytesIO(b"orphan"), limit=100)
    (house.root / ".incoming" / "half").write_bytes(b"hal")
    assert await house.files.sweep() == 0  # too young: an upload may be about to register it
    long_ago = house.root.stat().st_mtime - STALE_SECONDS - 10
    for path in house.root.rglob("*"):
        if path.is_file():
            os.utime(path, (long_ago, long_ago))
    assert await house.files.sweep() == 2
    assert house.on_disk() == {kept}
    await house.check()


@pytest.mark.parametrize("after", ["bytes", "row"])
async def test_a_server_that_is_killed_in_an_upload_loses_nothing_that_it_has_told_of(
    databases: Databases, tmp_path: Path, after: str
) -> None:
    """Another process is killed between the bytes and the row, or right after the row."""
    url, root = databases.url(), tmp_path / "files"
    command = (sys.executable, "-c", KILLED, url, str(root), after)
    killed = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, said = await killed.communicate()
    assert killed.returncode == -signal.SIGKILL, said.decode()
    house = House(databases.open(url), root)
    page = await house.files.list(ALICE, limit=10)
    await house.check()
    kept = {file.id for file in page.items}
    if after == "row":
        [told] = kept
        assert await house.read(told) == b"told"
    else:
        assert not kept
        assert len(house.on_disk()) == 1  # nobody's, until it is old enough for the sweep
    long_ago = root.stat().st_mtime - STALE_SECONDS - 10
    for path in root.rglob("*"):
        if path.is_file():
            os.utime(path, (long_ago, long_ago))
    await house.files.sweep()
    assert house.on_disk() == kept


KILLED = """
import asyncio, io, os, signal, sys
from pathlib import Path
from stationmaster.files import Depot, Files
from stationmaster.files.files import NewFile
from stationmaster.kernel.clock import ManualClock
from stationmaster.storage import open_database
from tests.support.core import ALICE

url, root, after = sys.argv[1:]
database = open_database(url)
write = database.write

async def cut(verb):
    if after == "row":
        await write(verb)
    os.kill(os.getpid(), signal.SIGKILL)

database.write = cut
files = Files(database, ManualClock(), Depot(Path(root)), max_size=1000, quota=2500)
asyncio.run(files.upload(ALICE, NewFile("a.txt", None, io.BytesIO(b"told"))))
"""


async def test_an_upload_goes_on_when_its_caller_leaves(house: House) -> None:
    task = asyncio.ensure_future(house.upload())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    while house.files._entering:
        await asyncio.wait(set(house.files._entering))
        await asyncio.sleep(0)
    page = await house.files.list(ALICE, limit=10)
    assert {file.id for file in page.items} == house.on_disk()
    await house.check()


async def test_a_directory_that_is_away_is_unavailable(house: House) -> None:
    house.root.write_text("not a directory")
    with pytest.raises(Unavailable):
        await house.upload()
    assert (await house.files.list(ALICE, limit=10)).items == []


async def test_bytes_that_are_gone_are_not_found(house: House) -> None:
    file_id = await house.upload()
    house.depot.remove(file_id)
    with pytest.raises(NotFound) as caught:
        await house.files.open(ALICE, file_id)
    assert caught.value.error_code == "file_not_found"
