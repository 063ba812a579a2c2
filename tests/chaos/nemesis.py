"""Carries out a plan of faults, and mends each."""

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.chaos.place import Kept, Place
from tests.chaos.plan import Fault

AT_ONCE = 3  # faults that may overlap
READY_S = 90.0  # what a server is given to be ready again before the next fault befalls it


class Nemesis:
    """`timeline` is what it did, and when; `done` how often each kind."""

    def __init__(self, place: Place, say: Callable[[str], None]) -> None:
        self._place = place
        self._say = say
        self._began = time.monotonic()
        self._turns = {part: asyncio.Lock() for part in place.parts}
        self._free = asyncio.Semaphore(AT_ONCE)
        self.timeline: list[str] = []
        self.done: Counter[str] = Counter()

    async def play(self, faults: list[Fault], until: Callable[[], bool] = lambda: False) -> None:
        """All of it, or as much as there is time for; when this returns, all is mended."""
        async with asyncio.TaskGroup() as group:
            for fault in faults:
                await asyncio.sleep(fault.after)
                if until():
                    break
                await self._free.acquire()
                group.create_task(self._one(fault))

    async def _one(self, fault: Fault) -> None:
        server = self._place.servers.get(fault.target)
        try:
            async with self._turns[fault.target] if server is None else server.turn:
                with self._noted(fault):
                    if server is None:
                        await self._part(fault)
                    else:
                        await self._server(fault, server)
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(READY_S):
                                await server.ready()
        finally:
            self._free.release()

    @contextlib.contextmanager
    def _noted(self, fault: Fault) -> Iterator[None]:
        role = fault.target.partition("-")[0]
        self.done[f"{fault.kind} {role}"] += 1
        self._note(f"begins  {fault}")
        yield
        self._note(f"is over {fault.number:4d} {fault.kind} {fault.target}")

    def _note(self, what: str) -> None:
        line = f"{time.monotonic() - self._began:8.2f} {what}"
        self.timeline.append(line)
        self._say(line)

    async def _server(self, fault: Fault, server: Kept) -> None:
        match fault.kind.split():
            case ["kill"]:
                await server.away(signal.SIGKILL, fault.lasts)
            case ["restart"]:
                await server.away(signal.SIGTERM, fault.lasts)
            case ["freeze"]:
                server.send(signal.SIGSTOP)
                await asyncio.sleep(fault.lasts)
                server.send(signal.SIGCONT)
            case ["clock"]:
                server.skew(fault.amount)
                await asyncio.sleep(fault.lasts)
                server.skew(0.0)
            case [how, part]:
                await _between(how, server, part, fault)

    async def _part(self, fault: Fault) -> None:
        if fault.target == "disk":
            await self._full(fault.lasts)
            return
        part = self._place.part(fault.target)
        crash = fault.kind == "crash"
        # In a thread: clients and proxies go on meanwhile.
        await asyncio.to_thread(part.pause if crash else part.hang)
        await asyncio.sleep(fault.lasts)
        await asyncio.to_thread(part.resume if crash else part.wake)

    async def _full(self, seconds: float) -> None:
        disk = self._place.disk
        servers = self._place.servers.values()
        if disk is None:
            for each in servers:
                each.may_grow(files=False)
            await asyncio.sleep(seconds)
            for each in servers:
                each.may_grow(files=True)
        else:
            filler = disk / "filler"
            await _held(lambda: _fill(filler), lambda: filler.unlink(missing_ok=True), seconds)


async def _between(how: str, server: Kept, part: str, fault: Fault) -> None:
    proxy = server.proxies[part]
    match how:
        case "cut":
            proxy.cut()
        case "drop":
            proxy.dropping = True
            await asyncio.sleep(fault.lasts)
            proxy.dropping = False
            proxy.cut()  # what was lost leaves a hole that nothing can mend
        case "stall":
            await _held(proxy.stall, proxy.flow, fault.lasts)
        case "slow":
            proxy.delay = fault.amount
            await asyncio.sleep(fault.lasts)
            proxy.delay = 0.0


async def _held(begin: Callable[[], object], end: Callable[[], object], seconds: float) -> None:
    begin()
    try:
        await asyncio.sleep(seconds)
    finally:
        end()


def _fill(path: Path) -> None:
    """Leave no byte free on its disk."""
    place = os.statvfs(path.parent)
    with contextlib.suppress(OSError), path.open("wb") as file:
        file.write(b"\0" * (place.f_bavail * place.f_frsize + 2**20))
