"""Clients that go on whatever happens, and keep a book of what they were told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.http.streams import frames

ENDED = "run.ended"


@dataclass
class Traffic:
    """What clients of one address saw. `failed` are requests that were not well served."""

    client: httpx.AsyncClient
    failed: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    finished: dict[str, list[int]] = field(default_factory=dict)
    reconnects: int = 0
    reads: int = 0
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def work(self, description: str) -> None:
        """Start tasks one after another, and follow each to its end."""
        while not self._stop.is_set():
            answer = await self._ask("POST", "/v1/tasks", json={"description": description})
            if answer is None:
                continue
            task_id = answer.json()["task_id"]
            self.tasks.append(task_id)
            await self._follow(task_id)

    async def read(self) -> None:
        """Ask for something small, again and again."""
        while not self._stop.is_set():
            if await self._ask("GET", "/v1/tasks", params={"limit": 1}) is not None:
                self.reads += 1

    async def _ask(self, method: str, path: str, **rest: Any) -> httpx.Response | None:
        try:
            answer = await self.client.request(method, path, **rest)
        except httpx.TransportError as error:
            self.failed.append(f"{method} {path}: {error!r}")
            return None
        if answer.is_success:
            return answer
        self.failed.append(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
        await asyncio.sleep(0.05)
        return None

    async def _follow(self, task_id: str) -> None:
        numbers = [0]
        while task_id not in self.finished:
            headers = {"last-event-id": str(numbers[-1]), "accept": "text/event-stream"}
            path = f"/v1/tasks/{task_id}/events"
            with suppress(httpx.TransportError):
                async with self.client.stream("GET", path, headers=headers) as answer:
                    if not answer.is_success:
                        self.failed.append(f"GET {path}: {answer.status_code}")
                    async for frame in frames(answer):
                        if frame is None or frame.id is None:
                            continue
                        numbers.append(frame.id)
                        if frame.type == ENDED:
                            self.finished[task_id] = numbers[1:]
            self.reconnects += task_id not in self.finished

    @property
    def gaps(self) -> dict[str, list[int]]:
        """The streams that left out or repeated a number."""
        return {
            task_id: numbers
            for task_id, numbers in self.finished.items()
            if numbers != list(range(1, len(numbers) + 1))
        }

    async def until(self, finished: int) -> None:
        """Return once so many more tasks have been followed to their end."""
        wanted = len(self.finished) + finished
        async with asyncio.timeout(180):
            while len(self.finished) < wanted:
                await asyncio.sleep(0.05)

    def stop(self) -> None:
        """Begin nothing new."""
        self._stop.set()


@asynccontextmanager
async def traffic(client: httpx.AsyncClient, *, workers: int = 4) -> AsyncIterator[Traffic]:
    """Load for as long as the block runs; at its end every task that began has ended."""
    made = Traffic(client)
    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(made.work("work"))
        group.create_task(made.read())
        try:
            yield made
        finally:
            made.stop()
