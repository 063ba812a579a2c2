"""Finding a key among many: lookups a second with 100,000 keys (BENCH_KEYS), against 100.

Each lookup is one that nobody remembers: the query itself, on SQLite and on PostgreSQL. Beside it,
how long a key takes that the resolver still remembers. Needs PostgreSQL's programs.
"""

import asyncio
import logging
import os
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import structlog
from sqlalchemy import insert, text

from bench.command import Plan, run
from bench.figure import Figure, Goal
from bench.programs import MissingProgramError
from bench.rounds import interleaved_async, middle
from stationmaster.access import Keys, Resolver, standing
from stationmaster.access.secret import KEY_PREFIX, Hasher, generate
from stationmaster.access.tables import api_keys
from stationmaster.kernel.clock import SystemClock
from stationmaster.kernel.ids import new_id
from stationmaster.migrations import migrate
from stationmaster.storage import Database, Transaction, open_database
from tests.support.postgres import find_programs, private_server

FEW, MANY = 100, int(os.environ.get("BENCH_KEYS", "100_000"))
CHUNK = 5_000
PEPPER = b"a pepper for the benchmark"


def measure(plan: Plan) -> list[Figure]:
    """Both databases, and the memory."""
    programs = find_programs()
    if programs is None:
        raise MissingProgramError("postgresql is missing; scripts/install-bench-tools installs it")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with (
        tempfile.TemporaryDirectory(prefix="bench-keys-") as name,
        private_server(programs, durable=False) as postgres,
    ):
        figures = []
        for database in ("SQLite", "PostgreSQL"):
            urls = [
                f"sqlite:///{Path(name, f'{count}.db')}"
                if database == "SQLite"
                else postgres.url(postgres.create())
                for count in (FEW, MANY)
            ]
            figures += asyncio.run(_measure(plan, database, *urls))
        return figures


async def _measure(plan: Plan, name: str, few_url: str, many_url: str) -> list[Figure]:
    few, many = await House.of(few_url, FEW), await House.of(many_url, MANY)
    try:
        seconds = 0.5 if plan.quick else 3.0
        found = await _in_turn(
            plan,
            f"{name}: a key nobody remembers",
            {
                "few": partial(few.look_up, seconds),
                "many": partial(many.look_up, seconds),
                "remembered": partial(many.resolve, seconds),
            },
        )
        what = f"{name}: finding one of {MANY:,} keys"
        return [
            Figure(what, found["many"], found["few"], f"of {FEW}", "µs", Goal("at most", 1.2)),
            Figure(f"{name}: a key again", found["remembered"], found["many"], "the query", "µs"),
        ]
    finally:
        await few.database.close()
        await many.database.close()


async def _in_turn(
    plan: Plan, what: str, candidates: dict[str, Callable[[], Awaitable[float]]]
) -> dict[str, float]:
    for candidate in candidates.values():
        await candidate()
    found = await interleaved_async(candidates, plan.rounds, plan.progress, what)
    return {name: middle(results, float) for name, results in found.items()}


class House:
    """A database with so many keys."""

    def __init__(self, database: Database, secrets: list[str]) -> None:
        self.database = database
        self._hasher = Hasher(PEPPER)
        self._secrets = secrets
        self._digests = [self._hasher.digest(secret) for secret in secrets]
        self._resolver = Resolver(database, self._hasher, SystemClock())
        self._random = random.Random(7)

    @classmethod
    async def of(cls, url: str, count: int) -> "House":
        """Made, and filled."""
        await migrate(url)
        database = open_database(url)
        hasher, clock = Hasher(PEPPER), SystemClock()
        keys = Keys(database, hasher, clock, Resolver(database, hasher, clock))
        await keys.bootstrap(admin=None, given=[])
        secrets = [generate(KEY_PREFIX) for _ in range(count)]
        for start in range(0, count, CHUNK):
            rows = [_row(hasher, secret) for secret in secrets[start : start + CHUNK]]

            def fill(tx: Transaction, rows: list[dict[str, object]] = rows) -> None:
                tx.execute(insert(api_keys), rows)

            await database.write(fill)
        await database.write(lambda tx: tx.execute(text("ANALYZE")))
        return cls(database, secrets)

    async def look_up(self, seconds: float) -> float:
        """Microseconds for each lookup in the database, one after the other."""

        async def once() -> None:
            digest = self._random.choice(self._digests)
            found = await self.database.read(lambda tx: standing.of_digest(tx, digest))
            assert found is not None

        return await _timed(once, seconds)

    async def resolve(self, seconds: float) -> float:
        """Microseconds for a key that was used just before."""

        async def once() -> None:
            await self._resolver.resolve(self._secrets[0])

        return await _timed(once, seconds)


async def _timed(once: Callable[[], Awaitable[None]], seconds: float) -> float:
    count, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        await once()
        count += 1
    return spent / count * 1_000_000


def _row(hasher: Hasher, secret: str) -> dict[str, object]:
    return {
        "id": new_id("key"),
        "organization_id": "org_default",
        "project_id": "proj_default",
        "name": "one-of-many",
        "hash": hasher.digest(secret),
        "hint": secret[-4:],
        "source": "created",
        "scopes": ["read:*", "write:*"],
        "created_at": 1,
    }


if __name__ == "__main__":
    sys.exit(run("keys", __doc__ or "", measure))
