"""Looks at what agents use, because no kernel limit covers a whole agent's memory or disk."""

import asyncio
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from stationmaster.agents.base import AgentLimitExceeded, Limits
from stationmaster.agents.claude_code.processes import (
    Process,
    private_bytes,
    read_table,
)

_log = structlog.get_logger(__name__)

# Memory and disk can grow by about a gigabyte a second: what is passed between two looks is small.
INTERVAL_SECONDS = 0.5
# Walking a large tree is work: it gets at most this share of the time.
_WALK_SHARE = 0.1
# What a file costs even where it is empty, so that millions of them count.
_ENTRY_BYTES = 1024
_BLOCK_BYTES = 512


@dataclass(slots=True)
class Watched:
    """One agent under watch. `exceeded` is called once, on the event loop, and must not block."""

    name: str
    limits: Limits
    directories: tuple[Path, ...]
    members: Callable[[Mapping[int, Process]], list[Process]]
    exceeded: Callable[[AgentLimitExceeded], None]
    next_walk: float = 0.0
    resting: bool = False


class Watcher:
    """Measures every watched agent at an interval."""

    def __init__(self, *, interval: float = INTERVAL_SECONDS) -> None:
        self._interval = interval
        self._watched: dict[str, Watched] = {}

    def add(self, watched: Watched) -> None:
        """Watch it from now on."""
        self._watched[watched.name] = watched

    def remove(self, name: str) -> None:
        """Stop watching. Idempotent."""
        self._watched.pop(name, None)

    def rest(self, name: str, *, resting: bool) -> None:
        """Walk its directories no more, or again: between turns nothing of it writes."""
        if (watched := self._watched.get(name)) is not None:
            watched.resting = resting

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(self._interval)
            if self._watched:
                await self.look()

    async def look(self) -> None:
        """Measure everything once, and report what is over its limit."""
        table = await asyncio.to_thread(read_table)
        for watched in list(self._watched.values()):
            await self._look_at(watched, table)

    async def look_at(self, name: str) -> None:
        """Measure one agent now: it may have died of a limit between two looks."""
        if (watched := self._watched.get(name)) is not None:
            await self._look_at(watched, await asyncio.to_thread(read_table))

    async def _look_at(self, watched: Watched, table: Mapping[int, Process]) -> None:
        failure = await self._measure(watched, table)
        if failure is not None and self._watched.pop(watched.name, None) is not None:
            _log.warning(
                "An agent went over a limit and is stopped.",
                agent=watched.name,
                **failure.details,
            )
            watched.exceeded(failure)

    async def _measure(
        self, watched: Watched, table: Mapping[int, Process]
    ) -> AgentLimitExceeded | None:
        members, failure = await asyncio.to_thread(_look_at_processes, watched, table)
        if failure is not None:
            return failure
        loop = asyncio.get_running_loop()
        began = loop.time()
        if watched.resting or began < watched.next_walk:
            return None
        bound = watched.limits.disk_bytes
        used = await asyncio.to_thread(disk_use, watched.directories, members, bound)
        watched.next_walk = loop.time() + (loop.time() - began) / _WALK_SHARE
        return _over("disk_bytes", used, bound)


def _look_at_processes(
    watched: Watched, table: Mapping[int, Process]
) -> tuple[list[Process], AgentLimitExceeded | None]:
    members, limits = watched.members(table), watched.limits
    failure = (
        _over("processes", len(members), limits.processes)
        or _over("cpu_seconds", int(sum(each.cpu for each in members)), limits.cpu_seconds)
        or _over("memory_bytes", memory_use(members, limits.memory_bytes), limits.memory_bytes)
    )
    return members, failure


def memory_use(members: Iterable[Process], bound: int) -> int:
    """Bytes of memory in use. Exact only where the cheap upper estimate is over `bound`."""
    members = list(members)
    upper = sum(member.resident for member in members)
    return upper if upper <= bound else sum(private_bytes(member.pid) for member in members)


def disk_use(directories: Sequence[Path], members: Iterable[Process], bound: int) -> int:
    """Bytes on disk below `directories`, and in deleted files that `members` still hold open.

    Follows no link. Stops counting above `bound`.
    """
    used = 0
    waiting = [str(directory) for directory in directories]
    while waiting and used <= bound:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError:
            continue
        for entry in entries:
            used += _ENTRY_BYTES
            try:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    used += entry.stat(follow_symlinks=False).st_blocks * _BLOCK_BYTES
            except OSError:
                continue
    return used + _held_open(members)


def _held_open(members: Iterable[Process]) -> int:
    found: dict[tuple[int, int], int] = {}
    for member in members:
        try:
            descriptors = list(Path(f"/proc/{member.pid}/fd").iterdir())
        except OSError:
            continue
        for descriptor in descriptors:
            try:
                status = descriptor.stat()
            except OSError:
                continue
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 0:
                found[status.st_dev, status.st_ino] = status.st_blocks * _BLOCK_BYTES
    return sum(found.values())


def _over(name: str, used: int, bound: int) -> AgentLimitExceeded | None:
    if used <= bound:
        return None
    return AgentLimitExceeded(
        f"The agent went over its limit of {name}: {used} of {bound}.",
        limit=name,
        used=used,
        bound=bound,
    )
