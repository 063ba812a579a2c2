"""Sealed answers in a directory: bounded, written whole or not at all, there after a restart.

    DIRECTORY/TENANT/QUESTION       a file's modification time is when its answer expires

The directory is this process's own to count. Where several share it, each bounds what it wrote and
what was there when it started.
"""

import asyncio
import os
import secrets
import time
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

import structlog

from stationmaster.cache.answer import Place
from stationmaster.cache.tier import Size
from stationmaster.kernel.clock import Clock, Millis

log = structlog.get_logger(__name__)

PART = ".part"
"""Ends the name of a file that is being written."""

STALE_PART_S = 3600.0
"""So old, a part belongs to a server that died over it."""

BLOCK = 4096
"""Bytes. A file takes whole blocks of the disk: a bound that counts less would not bound."""


class DiskTier:
    """A `Tier`. Call `open` before anything else."""

    def __init__(self, directory: Path, limit: int, clock: Clock) -> None:
        """`limit` is in bytes."""
        self.limit = limit
        self._directory = directory
        self._clock = clock
        self._kept: OrderedDict[Place, tuple[int, Millis]] = OrderedDict()
        self._bytes = 0
        self._changing = asyncio.Lock()

    def open(self) -> None:
        """Find what an earlier server left. Blocks; raises `OSError` where nothing can be kept."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory.chmod(0o700)
        found: list[tuple[Millis, int, Place]] = []
        for drawer in self._directory.iterdir():
            if not drawer.is_dir() or drawer.is_symlink():
                continue
            for path in drawer.iterdir():
                with suppress(OSError):
                    about = path.lstat()
                    if path.name.endswith(PART):
                        if about.st_mtime < time.time() - STALE_PART_S:
                            path.unlink()
                        continue
                    expires_at = about.st_mtime_ns // 1_000_000
                    found.append((expires_at, about.st_size, Place(drawer.name, path.name)))
        for expires_at, size, place in sorted(found, key=lambda each: each[0]):
            self._note(place, _taken(size), expires_at)
        self._unlink(self._crowded_out(0))

    async def get(self, place: Place) -> str | None:
        """See `Tier`."""
        known = self._kept.get(place)
        if known is None:
            return None
        if known[1] <= self._clock.now():
            await self.discard(place)
            return None
        try:
            text = await asyncio.to_thread(self._path(place).read_text, encoding="ascii")
        except (OSError, UnicodeDecodeError):
            await self.discard(place)
            return None
        if place in self._kept:
            self._kept.move_to_end(place)
        return text

    async def put(self, place: Place, text: str, expires_at: Millis) -> None:
        """See `Tier`."""
        size = _taken(len(text))
        if size > self.limit:
            return
        async with self._changing:
            self._drop(place)
            gone = self._crowded_out(size)
            # Counted before it is written: whatever happens to the writing, it is not too much.
            self._note(place, size, expires_at)
            try:
                await asyncio.to_thread(self._write, gone, place, text, expires_at)
            except OSError as error:
                self._drop(place)
                log.warning("An answer could not be kept on the disk.", error=str(error.strerror))

    async def discard(self, place: Place) -> None:
        """See `Tier`."""
        async with self._changing:
            self._drop(place)
            await asyncio.to_thread(self._unlink, [place])

    async def clear(self, tenant: str) -> int:
        """See `Tier`. Also what other processes put into the directory."""
        async with self._changing:
            for place in [place for place in self._kept if place.tenant == tenant]:
                self._drop(place)
            return await asyncio.to_thread(self._empty, tenant)

    async def size(self, tenant: str | None = None) -> Size:
        """See `Tier`."""
        if tenant is None:
            return Size(len(self._kept), self._bytes)
        found = [size for place, (size, _) in self._kept.items() if place.tenant == tenant]
        return Size(len(found), sum(found))

    async def sweep(self) -> int:
        """Delete what has expired; how many that were."""
        async with self._changing:
            now = self._clock.now()
            gone = [place for place, (_, expires_at) in self._kept.items() if expires_at <= now]
            for place in gone:
                self._drop(place)
            await asyncio.to_thread(self._unlink, gone)
            return len(gone)

    def _note(self, place: Place, size: int, expires_at: Millis) -> None:
        self._kept[place] = (size, expires_at)
        self._bytes += size

    def _drop(self, place: Place) -> None:
        known = self._kept.pop(place, None)
        if known is not None:
            self._bytes -= known[0]

    def _crowded_out(self, more: int) -> list[Place]:
        gone: list[Place] = []
        while self._kept and self._bytes + more > self.limit:
            place = next(iter(self._kept))
            self._drop(place)
            gone.append(place)
        return gone

    def _path(self, place: Place) -> Path:
        return self._directory / place.tenant / place.question

    def _write(self, gone: list[Place], place: Place, text: str, expires_at: Millis) -> None:
        self._unlink(gone)
        path = self._path(place)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        part = path.with_name(f"{place.question}.{secrets.token_hex(4)}{PART}")
        try:
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(text)
            os.utime(part, ns=(expires_at * 1_000_000, expires_at * 1_000_000))
            part.replace(path)
        except OSError:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise

    def _unlink(self, places: list[Place]) -> None:
        for place in places:
            with suppress(OSError):
                self._path(place).unlink(missing_ok=True)

    def _empty(self, tenant: str) -> int:
        gone = 0
        with suppress(OSError):
            for path in list((self._directory / tenant).iterdir()):
                path.unlink(missing_ok=True)
                gone += not path.name.endswith(PART)
        return gone


def _taken(size: int) -> int:
    return -(-max(size, 1) // BLOCK) * BLOCK
