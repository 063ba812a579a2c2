"""Claims a second with 10,000 runs that wait, against 100 that wait.

Whole claims: whose turn it is, the fence, the events, the run's and the session's rows. On SQLite
(synchronous=FULL) and on PostgreSQL (fsync on), by 1 and by 4 workers at once; the runs are of
20 organisations with 5 keys each, or every one of a key of its own. Behind both queues stands the
same history of ended runs. Needs PostgreSQL's programs.
"""

import asyncio
import logging
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Table, insert, select, text, update

from bench.command import Plan, run
from bench.figure import Figure, Goal
from bench.programs import MissingProgramError
from bench.rounds import interleaved_async, middle
from stationmaster.events.tables import streams
from stationmaster.kernel.ids import new_id
from stationmaster.migrations import migrate
from stationmaster.sessions.tables import runs, sessions
from stationmaster.storage import Database, Transaction, open_database
from tests.support.core import Core
from tests.support.postgres import PostgresServer, find_programs, private_server

FEW, MANY, HISTORY = 100, 10_000, 20_000
WORKERS = (1, 4)
ORGANIZATIONS, KEYS = 20, 5  # of each
AT_ONCE = 1000  # rows of one statement
WHOSE = {"of 100 keys": ORGANIZATIONS * KEYS, "each of its own key": MANY}


def measure(plan: Plan) -> list[Figure]:
    """Both queues on both databases."""
    programs = find_programs()
    if programs is None:
        raise MissingProgramError("postgresql is missing; scripts/install-bench-tools installs it")
    import uvloop

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with (
        tempfile.TemporaryDirectory(prefix="bench-claims-") as name,
        private_server(programs, durable=True) as postgres,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        figures = []
        for database in ("SQLite", "PostgreSQL"):
            for whose in WHOSE:
                figures += runner.run(_measure(plan, database, whose, Path(name), postgres))
        return figures


async def _measure(
    plan: Plan, name: str, whose: str, directory: Path, postgres: PostgresServer
) -> list[Figure]:
    queues = {}
    for waiting in (FEW, MANY):
        file = directory / f"{whose}-{waiting}.db"
        url = f"sqlite:///{file}" if name == "SQLite" else postgres.url(postgres.create())
        plan.progress.say(f"{name}: {waiting} runs {whose} are queued")
        await migrate(url)
        queues[f"{waiting}"] = await Queue.filled(open_database(url), directory, waiting, whose)
    try:
        return [await _figure(plan, name, whose, queues, workers) for workers in WORKERS]
    finally:
        for queue in queues.values():
            await queue.database.close()


async def _figure(
    plan: Plan, name: str, whose: str, queues: "dict[str, Queue]", workers: int
) -> Figure:
    claims = 20 if plan.quick else 60
    candidates: dict[str, Callable[[], Awaitable[float]]] = {
        waiting: partial(queue.rate, workers, claims) for waiting, queue in queues.items()
    }
    for candidate in candidates.values():
        await candidate()
    by = "1 worker" if workers == 1 else f"{workers} workers"
    what = f"{name}: claims of {MANY:,} that wait, {whose}, by {by}"
    found = await interleaved_async(candidates, plan.rounds, plan.progress, what)
    few, many = (middle(found[str(waiting)], float) for waiting in (FEW, MANY))
    return Figure(what, many, few, f"{FEW} that wait", "/s", Goal("at least", 0.8))


class Queue:
    """A database with runs that wait."""

    def __init__(self, database: Database, core: Core) -> None:
        self.database = database
        self._workers = [core, *(core.beside() for _ in range(max(WORKERS) - 1))]

    @classmethod
    async def filled(cls, database: Database, directory: Path, waiting: int, whose: str) -> "Queue":
        """With copies of one run that was started as all are."""
        core = Core(database, directory)
        first = await core.start()
        at = core.clock.now()

        def one(tx: Transaction, table: Table, of: str) -> dict[str, Any]:
            [row] = tx.execute(select(table).where(table.c.id == of)).mappings()
            return dict(row)

        def copies(tx: Transaction) -> None:
            stream, session = (one(tx, each, first.session_id) for each in (streams, sessions))
            run = one(tx, runs, first.id)
            tx.execute(update(runs).values(state="cancelled"))
            made = 0
            while made < waiting + HISTORY:
                numbers = range(made, min(made + AT_ONCE, waiting + HISTORY))
                ids = [(new_id("sesn"), new_id("run")) for _ in numbers]
                owners = [_owner(number, WHOSE[whose]) for number in numbers]
                tx.execute(insert(streams), [stream | {"id": each} for each, _ in ids])
                tx.execute(
                    insert(sessions),
                    [
                        session | owner | {"id": each, "run_id": of}
                        for (each, of), owner in zip(ids, owners, strict=True)
                    ],
                )
                tx.execute(
                    insert(runs),
                    [
                        run
                        | owner
                        | {"id": of, "session_id": each, "message_id": None}
                        | ({} if number < waiting else {"state": "completed", "started_at": at})
                        for number, (each, of), owner in zip(numbers, ids, owners, strict=True)
                    ],
                )
                made += len(ids)

        await database.write(copies)
        await database.write(lambda tx: tx.execute(text("ANALYZE")))
        return cls(database, core)

    async def rate(self, workers: int, claims: int) -> float:
        """Claims a second; what was claimed is put back."""
        began = time.perf_counter()
        taken = await asyncio.gather(
            *(self._claim(core, claims // workers) for core in self._workers[:workers])
        )
        elapsed = time.perf_counter() - began
        claimed = [run_id for each in taken for run_id in each]
        back = update(runs).where(runs.c.id.in_(claimed)).values(state="queued", instance_id=None)
        await self.database.write(lambda tx: tx.execute(back))
        return len(claimed) / elapsed

    @staticmethod
    async def _claim(core: Core, claims: int) -> list[str]:
        taken = []
        for _ in range(claims):
            claim = await core.claims.next()
            if claim is None:
                raise RuntimeError("Nothing was to be claimed.")
            taken.append(claim.run.id)
        return taken


def _owner(number: int, keys: int) -> dict[str, str]:
    key = number % keys
    return {"organization_id": f"org_{key % ORGANIZATIONS:03}", "key_id": f"key_{key:06}"}


if __name__ == "__main__":
    sys.exit(run("claims", __doc__ or "", measure))
