import asyncio
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from stationmaster.agents.base import AgentLimitExceeded, Limits
from stationmaster.agents.claude_code.processes import (
    Process,
    descendants,
    private_bytes,
    read_process,
    read_table,
)
from stationmaster.agents.claude_code.watcher import Watched, Watcher, disk_use, memory_use

_MB = 1024**2


def _this() -> Process:
    found = read_process(os.getpid())
    assert found is not None
    return replace(found, cpu=0.0)  # after an hour of tests it is over a limit by itself


def test_disk_use_counts_what_is_there_and_follows_no_link(tmp_path: Path) -> None:
    top, outside = tmp_path / "top", tmp_path / "outside"
    (top / "a").mkdir(parents=True)
    outside.mkdir()
    (outside / "large").write_bytes(b"x" * 4 * _MB)
    (top / "a" / "file").write_bytes(b"x" * _MB)
    (top / "link").symlink_to(outside)
    used = disk_use((top, tmp_path / "gone"), [], 100 * _MB)
    assert _MB <= used < 2 * _MB


def test_empty_files_count(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / str(number)).touch()
    assert disk_use((tmp_path,), [], 100 * _MB) >= 50 * 1024


def test_a_deleted_file_that_is_held_open_counts(tmp_path: Path) -> None:
    before = disk_use((tmp_path,), [_this()], 100 * _MB)
    with (tmp_path / "gone").open("wb") as file:
        (tmp_path / "gone").unlink()
        file.write(b"x" * 3 * _MB)
        file.flush()
        os.fsync(file.fileno())
        assert disk_use((tmp_path,), [_this()], 100 * _MB) >= before + 3 * _MB


def test_counting_stops_above_the_bound(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "file").write_bytes(b"x" * 64 * 1024)
    assert 100_000 < disk_use((tmp_path,), [], 100_000) < 20 * 64 * 1024


def test_memory_is_exact_where_the_estimate_is_over() -> None:
    this = replace(_this(), resident=10**15)
    assert memory_use([this], 10**12) < 10**12
    assert private_bytes(this.pid) > _MB
    assert private_bytes(2**22 + 1) == 0


def test_descendants_of_a_tree_with_a_loop_end() -> None:
    def line(pid: int, parent: int) -> Process:
        return Process(pid, parent, 0, "S", 0, 0.0, 0)

    table = {1: line(1, 0), 2: line(2, 1), 3: line(3, 2), 4: line(4, 1), 9: line(9, 9)}
    assert descendants(table, 2) == {2, 3}
    assert descendants(table, 9) == {9}
    assert descendants(table, 77) == set()


def test_the_table_knows_this_process_and_its_parent() -> None:
    table = read_table()
    this = table[os.getpid()]
    assert (this.parent, this.uid, this.alive) == (os.getppid(), os.getuid(), True)
    assert this.resident > _MB


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        (Limits(processes=1), "processes"),
        (Limits(memory_bytes=1000), "memory_bytes"),
        (Limits(cpu_seconds=-1), "cpu_seconds"),
        (Limits(disk_bytes=1000), "disk_bytes"),
    ],
)
async def test_each_limit_is_reported_once(tmp_path: Path, limits: Limits, name: str) -> None:
    (tmp_path / "file").write_bytes(b"x" * _MB)
    reported: list[AgentLimitExceeded] = []

    def members(_table: Mapping[int, Process]) -> list[Process]:
        return [_this(), _this()]

    watcher = Watcher()
    watcher.add(Watched("one", limits, (tmp_path,), members, reported.append))
    await watcher.look()
    await watcher.look()
    assert [failure.details["limit"] for failure in reported] == [name]


async def test_the_directories_of_one_that_rests_are_not_walked_and_its_memory_is(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_bytes(b"x" * _MB)
    reported: list[AgentLimitExceeded] = []
    watcher = Watcher()
    for name, limits in (("disk", Limits(disk_bytes=1000)), ("memory", Limits(memory_bytes=1000))):
        watcher.add(Watched(name, limits, (tmp_path,), lambda _table: [_this()], reported.append))
        watcher.rest(name, resting=True)
    watcher.rest("another", resting=True)
    await watcher.look()
    assert [failure.details["limit"] for failure in reported] == ["memory_bytes"]
    watcher.rest("disk", resting=False)
    await watcher.look()
    assert [failure.details["limit"] for failure in reported] == ["memory_bytes", "disk_bytes"]


async def test_who_keeps_to_the_limits_or_is_gone_is_left_alone(tmp_path: Path) -> None:
    reported: list[AgentLimitExceeded] = []
    watcher = Watcher(interval=0.001)
    looked = asyncio.Event()

    def members(_table: Mapping[int, Process]) -> list[Process]:
        loop.call_soon_threadsafe(looked.set)
        return [_this()]

    loop = asyncio.get_running_loop()
    watcher.add(Watched("good", Limits(memory_bytes=10**12), (tmp_path,), members, reported.append))
    watcher.add(Watched("gone", Limits(processes=0), (tmp_path,), members, reported.append))
    watcher.remove("gone")
    watcher.remove("gone")
    running = asyncio.create_task(watcher.run())
    await looked.wait()
    running.cancel()
    await asyncio.wait({running})
    assert reported == []
