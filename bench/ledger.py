"""The ledger's size: the usage of a month over millions of lines, against ten thousand.

Both ledgers have the same keys and models, all of it within one month, and their roll-ups. Also
the proof of the whole ledger, lines a second, against a bare `SELECT` of the same columns. On
SQLite and on PostgreSQL (fsync on). Needs PostgreSQL's programs, and for each million lines some
GB of disk.
"""

import asyncio
import itertools
import logging
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import insert, literal, select

from bench.command import Plan, run
from bench.figure import Figure, Goal
from bench.programs import MissingProgramError
from bench.progress import Progress
from bench.rounds import interleaved_async, middle
from stationmaster.budgets import Reports, Rollups
from stationmaster.budgets.proof import prove
from stationmaster.budgets.tables import ledger
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.ids import new_id
from stationmaster.kernel.principal import Owner, Principal
from stationmaster.migrations import migrate
from stationmaster.storage import Database, Transaction, open_database
from tests.support.postgres import find_programs, private_server

SMALL = 10_000
LARGE = 10_000_000
QUICK = 200_000
MADE = 100_000  # lines that are made here; the rest are copies, which the database makes
PAGE = 5_000
NOW = 1_769_774_400_000  # 2026-01-30T12:00:00Z
SPREAD_MS = 29 * 86_400_000  # of the month before that
OWNER = Owner("org_bench", "proj_bench")
READER = Principal("key", "key_1", OWNER, "key_1", frozenset({"read:*"}))
KEYS, MODELS = 10, 3


def measure(plan: Plan) -> list[Figure]:
    """Small and large, on both databases."""
    programs = find_programs()
    if programs is None:
        raise MissingProgramError("postgresql is missing; scripts/install-bench-tools installs it")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with (
        tempfile.TemporaryDirectory(prefix="bench-ledger-") as name,
        private_server(programs, durable=True) as postgres,
    ):
        urls = {
            "SQLite": [f"sqlite:///{Path(name, f'{size}.db')}" for size in ("small", "large")],
            "PostgreSQL": [postgres.url(postgres.create()) for _ in range(2)],
        }
        return [
            figure
            for kind, (small, large) in urls.items()
            for figure in asyncio.run(_measure(plan, kind, small, large))
        ]


async def _measure(plan: Plan, kind: str, small: str, large: str) -> list[Figure]:
    lines = plan.rows or (QUICK if plan.quick else LARGE)
    databases = []
    try:
        for url, size in ((small, SMALL), (large, lines)):
            await migrate(url)
            databases.append(open_database(url, statement_timeout=3600.0))
            await _fill(databases[-1], size, plan.progress)
        return [
            await _month(plan, kind, databases, lines),
            await _proof(plan, kind, databases[1], lines),
        ]
    finally:
        for database in databases:
            await database.close()


async def _month(plan: Plan, kind: str, databases: list[Database], lines: int) -> Figure:
    candidates: dict[str, Callable[[], Awaitable[float]]] = {
        name: partial(_usage, database)
        for name, database in zip(("small", "large"), databases, strict=True)
    }
    for candidate in candidates.values():
        await candidate()
    what = f"{kind}: usage of a month over {lines:,} lines"
    found = await interleaved_async(candidates, plan.rounds * 3, plan.progress, what)
    ours, baseline = middle(found["large"], float), middle(found["small"], float)
    goal = Goal("at most", 3.0)
    return Figure(what, ours * 1000, baseline * 1000, f"{SMALL:,} lines", "ms", goal)


async def _proof(plan: Plan, kind: str, database: Database, lines: int) -> Figure:
    candidates: dict[str, Callable[[], Awaitable[float]]] = {
        "SELECT": partial(_read, database),
        "proof": partial(_prove, database),
    }
    what = f"{kind}: proof of {lines:,} lines"
    found = await interleaved_async(candidates, 1, plan.progress, what)
    ours, bare = middle(found["proof"], float), middle(found["SELECT"], float)
    return Figure(what, lines / ours, lines / bare, "SELECT", "lines/s")


async def _usage(database: Database) -> float:
    reports = Reports(database, ManualClock(NOW))
    start = time.perf_counter()
    await reports.usage(READER, "month")
    return time.perf_counter() - start


async def _prove(database: Database) -> float:
    start = time.perf_counter()
    proof = await prove(database)
    assert proof.holds_good, proof.differences
    return time.perf_counter() - start


async def _read(database: Database) -> float:
    def read(tx: Any) -> int:
        lines, after = 0, ""
        while True:
            columns = (ledger.c.call_id, ledger.c.cost, ledger.c.tokens, ledger.c.charges)
            query = select(*columns).where(ledger.c.call_id > after)
            page = tx.execute(query.order_by(ledger.c.call_id).limit(PAGE)).all()
            if not page:
                return lines
            lines, after = lines + len(page), page[-1].call_id

    start = time.perf_counter()
    await database.read(read)
    return time.perf_counter() - start


async def _fill(database: Database, size: int, progress: Progress) -> None:
    made = _lines(min(size, MADE))
    done = 0
    while page := list(itertools.islice(made, PAGE)):
        await database.write(lambda tx, page=page: tx.execute(insert(ledger), page))  # type: ignore[misc]
        done += len(page)
    for number in itertools.count(1):
        progress.say(f"{done:,} of {size:,} lines")
        if done >= size:
            break
        rows = min(MADE, size - done)
        await database.write(partial(_copy, number=number, rows=rows))
        done += rows
    await Rollups(database).rebuild()


def _copy(tx: Transaction, *, number: int, rows: int) -> None:
    """The lines that were made once more, under other ids and at other times."""
    age = NOW - ledger.c.at + number * 7_919_000
    changed = {
        "call_id": literal(f"copy{number:05}_").concat(ledger.c.call_id),
        "at": NOW - age % SPREAD_MS,
    }
    columns = [changed.get(column.name, column) for column in ledger.c]
    first = ledger.c.call_id.between("call_", "call_zzz")
    query = select(*columns).where(first).order_by(ledger.c.call_id).limit(rows)
    tx.execute(insert(ledger).from_select([column.name for column in ledger.c], query))


def _lines(size: int) -> Iterator[dict[str, Any]]:
    rng = random.Random(size)
    for _ in range(size):
        tokens = [rng.randrange(2_000) for _ in range(4)]
        yield {
            "call_id": new_id("call"),
            "at": NOW - rng.randrange(SPREAD_MS),
            "organization_id": OWNER.organization_id,
            "project_id": OWNER.project_id,
            "key_id": f"key_{rng.randrange(KEYS)}",
            "user_id": None,
            "run_id": None,
            "session_id": None,
            "tags": None,
            "provider": "anthropic",
            "model": f"model_{rng.randrange(MODELS)}",
            "input_tokens": tokens[0],
            "output_tokens": tokens[1],
            "cache_write_tokens": tokens[2],
            "cache_write_1h_tokens": 0,
            "cache_read_tokens": tokens[3],
            "tokens": sum(tokens),
            "cost": rng.randrange(100_000),
            "outcome": "complete",
            "duration_ms": 100,
            "charges": None,
        }


if __name__ == "__main__":
    rows = f"lines of the large ledger ({LARGE:,}, quick {QUICK:,})"
    sys.exit(run("ledger", __doc__ or "", measure, rows=rows))
