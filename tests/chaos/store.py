"""Looks into the store from beside the servers: while they work, and when all is over."""

import asyncio
import json
from contextlib import suppress
from typing import Any

import asyncpg

from stationmaster.budgets.proof import prove
from stationmaster.storage import open_database
from tests.chaos.records import Book, Budget, Event, Line, Run

AWAY = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError)
EVERY_S = 0.05
SOON_MS = 30_000  # a job that is due later than this is none of the campaign's
HARD = "SELECT id, \"limit\", spent, held FROM budgets WHERE mode = 'hard'"
LEFT = (
    ("a call", "SELECT call_id, instance_id FROM holds"),
    ("a run", "SELECT id, state, instance_id FROM runs WHERE state IN ('queued', 'running')"),
    (
        "a job",
        "SELECT id, kind, state, error FROM jobs"
        " WHERE state != 'waiting' OR run_at < extract(epoch FROM now()) * 1000 + $1",
    ),
)


class Observer:
    """Looks at the budgets as often as it can; `passed` is where one was."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.samples = 0
        self.passed: list[str] = []

    async def watch(self) -> None:
        """Until cancelled, whether the database is there or not."""
        while True:
            with suppress(*AWAY):
                connection = await asyncpg.connect(self._url, timeout=5, command_timeout=5)
                try:
                    await self._look(connection)
                finally:
                    connection.terminate()
            await asyncio.sleep(EVERY_S)

    async def _look(self, connection: Any) -> None:
        while True:
            for row in await connection.fetch(HARD + ' AND spent + held > "limit"'):
                self.passed.append(str(tuple(row)))
            self.samples += 1
            await asyncio.sleep(EVERY_S)


async def settled(url: str, seconds: float) -> list[str]:
    """Wait until nothing is under way; what still is after so long."""
    left = ["the database was not asked"]
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while left:
                with suppress(*AWAY):
                    left = await _left(url)
                await asyncio.sleep(0.2)
    return left


async def _left(url: str) -> list[str]:
    connection = await asyncpg.connect(url, timeout=5, command_timeout=10)
    try:
        found = []
        for what, query in LEFT:
            values = (SOON_MS,) if "$1" in query else ()
            found += [f"{what}: {tuple(row)}" for row in await connection.fetch(query, *values)]
        return found
    finally:
        connection.terminate()


async def read_book(url: str) -> Book:
    """All that the checks compare."""
    connection = await asyncpg.connect(url)
    try:
        book = Book(
            runs=[
                Run(
                    row["id"],
                    row["session_id"],
                    row["state"],
                    row["message_id"] is None,
                    row["lost"],
                )
                for row in await connection.fetch("SELECT * FROM runs")
            ],
            heads=dict(await connection.fetch("SELECT id, head FROM streams")),
            ledger=[
                Line(row["call_id"], row["outcome"], _tokens(row), row["cost"])
                for row in await connection.fetch("SELECT * FROM ledger")
            ],
            budgets=[Budget(*row) for row in await connection.fetch(HARD)],
            jobs=[
                f"{row['id']} {row['kind']} {row['state']} {row['error']}"
                for row in await connection.fetch(LEFT[2][1], SOON_MS)
            ],
            holds=[str(tuple(row)) for row in await connection.fetch(LEFT[0][1])],
        )
        for row in await connection.fetch("SELECT * FROM events ORDER BY stream_id, seq"):
            book.events.setdefault(row["stream_id"], []).append(_event(row))
    finally:
        await connection.close()
    database = open_database(url)
    proof = await prove(database)
    await database.close()
    book.differences = [str(each) for each in proof.differences]
    return book


def _tokens(row: Any) -> tuple[int, int]:
    return (row["input_tokens"], row["output_tokens"])


def _event(row: Any) -> Event:
    data = json.loads(row["data"])
    content = data.get("content")
    words = content if isinstance(content, str) else ""
    if isinstance(content, list):
        words = " ".join(str(each.get("text", "")) for each in content if isinstance(each, dict))
    return Event(row["seq"], row["type"], data.get("run_id"), words)
