"""Answers on the disk: after a restart, after damage, and read by nobody else."""

import asyncio
import os
from pathlib import Path

import pytest

from stationmaster.cache import AnswerCache, DiskTier, MemoryTier, Place, Size
from stationmaster.kernel.clock import ManualClock, SystemClock
from stationmaster.kernel.principal import Owner
from stationmaster.storage.sealing import Sealer

OWNER = Owner("org_1", "proj_1")
JSON = (("content-type", "application/json"),)
CANARY = b"the canary sings at seven"
MB = 1024**2


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(SystemClock().now())


def opened(directory: Path, clock: ManualClock, limit: int = MB) -> DiskTier:
    disk = DiskTier(directory, limit, clock)
    disk.open()
    return disk


def cache(disk: DiskTier, clock: ManualClock, *, key: bytes = b"k") -> AnswerCache:
    sealer = Sealer([key])
    return AnswerCache(
        secret=b"s",
        sealer=sealer,
        clock=clock,
        ttl=60,
        memory=MemoryTier(MB, clock),
        kept=("disk", disk, disk.limit),
    )


def files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


async def test_answers_survive_a_restart_and_expire_after_it(
    tmp_path: Path, clock: ManualClock
) -> None:
    first = cache(opened(tmp_path, clock), clock)
    place = first.place(OWNER, [b"q"])
    await first.put(place, JSON, b"{}", stream=False)
    again = cache(opened(tmp_path, clock), clock)
    found = await again.get(again.place(OWNER, [b"q"]))
    assert found is not None
    assert (found.body, found.headers, found.stream) == (b"{}", JSON, False)
    clock.advance(61)
    late = opened(tmp_path, clock)
    assert await cache(late, clock).get(place) is None
    assert await late.size() == Size(0, 0)
    assert files(tmp_path) == []


async def test_neither_words_nor_names_can_be_read_from_the_disk(
    tmp_path: Path, clock: ManualClock
) -> None:
    made = cache(opened(tmp_path, clock), clock)
    await made.put(made.place(OWNER, [CANARY]), JSON, CANARY, stream=True)
    told = b"".join(
        path.read_bytes() + str(path.relative_to(tmp_path)).encode() for path in files(tmp_path)
    )
    assert files(tmp_path)
    for word in (CANARY, CANARY[:8], b"org_1", b"proj_1", b"content-type"):
        assert word not in told
    for path in tmp_path.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0
    assert tmp_path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: b"",
        lambda text: text[: len(text) // 2],
        lambda text: text[:-1] + (b"A" if text[-1:] != b"A" else b"B"),
        lambda text: b"\xff" + text,
        lambda text: b"s1.x.y.z",
    ],
)
async def test_a_damaged_entry_is_a_miss_and_goes(
    tmp_path: Path, clock: ManualClock, damage: object
) -> None:
    made = cache(opened(tmp_path, clock), clock)
    place = made.place(OWNER, [b"q"])
    await made.put(place, JSON, b"{}", stream=False)
    (file,) = files(tmp_path)
    about = file.stat()
    file.write_bytes(damage(file.read_bytes()))  # type: ignore[operator]
    os.utime(file, ns=(about.st_mtime_ns, about.st_mtime_ns))
    again = cache(opened(tmp_path, clock), clock)
    assert await again.get(place) is None
    assert files(tmp_path) == []


async def test_an_entry_at_anothers_place_cannot_be_read(
    tmp_path: Path, clock: ManualClock
) -> None:
    made = cache(opened(tmp_path, clock), clock)
    mine = made.place(OWNER, [b"q"])
    theirs = made.place(Owner("org_2", "proj_2"), [b"q"])
    await made.put(mine, JSON, b"{}", stream=False)
    (file,) = files(tmp_path)
    target = tmp_path / theirs.tenant / theirs.question
    target.parent.mkdir(mode=0o700)
    file.rename(target)
    assert await cache(opened(tmp_path, clock), clock).get(theirs) is None


async def test_another_key_opens_nothing(tmp_path: Path, clock: ManualClock) -> None:
    made = cache(opened(tmp_path, clock), clock)
    place = made.place(OWNER, [b"q"])
    await made.put(place, JSON, b"{}", stream=False)
    assert await cache(opened(tmp_path, clock), clock, key=b"other").get(place) is None


async def test_a_smaller_bound_is_kept_from_the_start(tmp_path: Path, clock: ManualClock) -> None:
    disk = opened(tmp_path, clock)
    for number in range(40):
        await disk.put(Place("aa", f"{number:02}"), "x" * 4000, clock.now() + 60_000 + number)
    limit = 10 * 4096
    again = opened(tmp_path, clock, limit)
    assert (await again.size()).bytes <= limit
    assert sum(path.stat().st_size for path in files(tmp_path)) <= limit
    assert await again.get(Place("aa", "39")) == "x" * 4000


async def test_a_server_that_died_over_a_file_left_no_entry(
    tmp_path: Path, clock: ManualClock
) -> None:
    disk = opened(tmp_path, clock)
    await disk.put(Place("aa", "01"), "x", clock.now() + 60_000)
    left = tmp_path / "aa" / "02.0badcafe.part"
    left.write_text("half")
    os.utime(left, (1, 1))
    again = opened(tmp_path, clock)
    assert (await again.size()).entries == 1
    assert not left.exists()


async def test_a_disk_that_takes_nothing_fails_no_call(tmp_path: Path, clock: ManualClock) -> None:
    disk = opened(tmp_path / "cache", clock)
    made = cache(disk, clock)
    place = made.place(OWNER, [b"q"])
    (tmp_path / "cache" / place.tenant).write_text("a file where its directory should be")
    answer = await made.put(place, JSON, b"{}", stream=False)
    assert answer.body == b"{}"
    assert await disk.size() == Size(0, 0)
    assert await made.get(place) == answer  # the memory has it


async def test_the_sweep_deletes_what_nobody_asks_for(tmp_path: Path, clock: ManualClock) -> None:
    disk = opened(tmp_path, clock)
    await asyncio.gather(
        *(disk.put(Place("aa", f"{n}"), "x", clock.now() + n * 10_000) for n in range(1, 5))
    )
    clock.advance(25)
    assert await disk.sweep() == 2
    assert len(files(tmp_path)) == (await disk.size()).entries == 2
