"""The ceiling: whatever happens at once, and whatever dies, spending does not pass a budget.

64 calls at once (messages, streams, tasks) against a budget that pays for 10, with somebody
looking at the store from outside all the time. `CEILING_ROUNDS` is how often; the servers stay up
over all rounds, and each tells how it went:

    CEILING_ROUNDS=200 scripts/test -n0 -s -o faulthandler_timeout=0 \\
        tests/acceptance/test_ceiling.py

A round takes 4 to 15 seconds. What takes five minutes is given up, but for `faulthandler_timeout`.
"""

import asyncio
import json
import os
import random
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from stationmaster.budgets.proof import prove
from stationmaster.migrations import migrate
from stationmaster.storage import open_database
from tests.support.asking_server import BODY
from tests.support.books import served_cost
from tests.support.postgres import PostgresServer
from tests.support.server import ServerProcess
from tests.support.wire_upstream import Json, Reply, Text, Usage, WireUpstream

ROUNDS = int(os.environ.get("CEILING_ROUNDS", "1"))
ROUND_SECONDS = 60  # for one round, at most, on a machine that others use

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.slow,
    pytest.mark.timeout(900 + ROUND_SECONDS * ROUNDS),
]

CALLS = {"message": 24, "stream": 24, "task": 16}
PAYS_FOR = 10
KILL_BEFORE = 40  # of the calls that reach the provider in a round
SETTLED_SECONDS = 60.0
SECRET = "one-secret-for-all-replicas-of-this-test"

# What a call of `BODY` is held at: its bytes and 4,096 hidden tokens, and all of `max_tokens`, at
# the prices of its model. It is read from the store, not computed here.


class AskingServer(ServerProcess):
    program = ("tests.support.asking_server",)


Query = Callable[[str], Awaitable[list[Any]]]


@dataclass
class Observer:
    """Looks at the store from outside, as often as it can."""

    query: Query
    samples: int = 0
    at_work: int = 0  # samples in which something was held
    broken: list[Any] = field(default_factory=list)

    async def look(self) -> None:
        # Only what is at work or wrong: after many rounds most budgets rest.
        rows = await self.query(
            'SELECT subject_kind, "limit", spent, held FROM budgets'
            " WHERE mode = 'hard' AND (held > 0 OR spent > \"limit\")"
        )
        self.samples += 1
        self.at_work += bool(rows)
        self.broken += [row for row in rows if row[2] + row[3] > row[1]]

    async def watch(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(0.002)


@dataclass
class Place:
    """A store, its replicas, and the provider behind them."""

    replicas: list[AskingServer]
    upstream: WireUpstream
    url: str
    query: Query
    rng: random.Random


@asynccontextmanager
async def store(
    kind: str, directory: Path, postgres_server: PostgresServer
) -> AsyncIterator[tuple[str, Query]]:
    """A migrated database, and a way to ask it beside the servers."""
    if kind == "sqlite":
        path = directory / "shared.db"
        await migrate(f"sqlite:///{path}")

        def read(statement: str) -> list[Any]:
            with closing(sqlite3.connect(path, timeout=10)) as connection:
                return connection.execute(statement).fetchall()

        yield f"sqlite:///{path}", lambda statement: asyncio.to_thread(read, statement)
        return
    name = postgres_server.create()
    url = postgres_server.url(name)
    await migrate(url)
    pool = await asyncpg.create_pool(url, min_size=1, max_size=3)

    async def fetch(statement: str) -> list[Any]:
        return [tuple(row) for row in await pool.fetch(statement)]

    yield url, fetch
    await pool.close()
    postgres_server.drop(name)


@asynccontextmanager
async def place(
    kind: str, replicas: int, directory: Path, postgres_server: PostgresServer
) -> AsyncIterator[Place]:
    rng = random.Random(f"{kind} {replicas}")

    def script(request: Json) -> Reply:
        # Never more than the bytes and `max_tokens` allow: a provider keeps to these.
        usage = Usage(
            input_tokens=rng.randrange(len(json.dumps(request))),
            output_tokens=rng.randrange(request["max_tokens"] + 1),
        )
        return Reply((Text("a few words " * 5),), usage, delay=rng.random() / 10)

    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(WireUpstream(script))
        url, query = await stack.enter_async_context(store(kind, directory, postgres_server))
        started = []
        for number in range(replicas):
            (home := directory / f"replica-{number}").mkdir()
            env = {
                "ANTHROPIC_API_KEY": "sk-ant-server-key-for-tests",
                "ANTHROPIC_BASE_URL": upstream.url,
                "DATABASE_URL": url,
                "SECRET_KEY": SECRET,
                "MAX_WORKERS": "8",
                "AGENT_POOL_SIZE": "0",
                "LOG_LEVEL": "warning",
                "PYTHONPATH": str(Path(__file__).parents[2]),
            }
            server = AskingServer(home, env)
            started.append(await stack.enter_async_context(server))
        yield Place(started, upstream, url, query, rng)


@dataclass
class Round:
    """One key with its budget, and what became of its calls."""

    key: str
    key_id: str
    budget_id: str
    first_call: int  # of the provider's that is this round's
    outcomes: Counter[str] = field(default_factory=Counter)


async def begin(at: Place) -> Round:
    """A new key, and a budget for ten of its calls."""
    client = at.replicas[0].client
    made = await client.post(
        "/api/admin/keys", json={"name": "spender", "permissions": ["read:*", "write:*"]}
    )
    assert made.status_code == 201, made.text
    key = made.json()
    worst = await hold_of_one(at, key["key"])
    answer = await client.post(
        "/v1/budgets",
        json={
            "subject": {"type": "key", "id": key["id"]},
            "limit_usd": f"{worst * PAYS_FOR / 1_000_000:.6f}",
        },
    )
    assert answer.status_code == 201, answer.text
    first_call = len(at.upstream.message_calls)
    return Round(key["key"], key["id"], answer.json()["id"], first_call)


async def hold_of_one(at: Place, key: str) -> int:
    """What the store holds for one call while it is under way."""
    gate = asyncio.Event()
    script, at.upstream.script = at.upstream.script, lambda _: Reply((Text("x"),), hold=gate)
    client = at.replicas[0].client
    seen = len(at.upstream.message_calls)
    calling = asyncio.ensure_future(
        client.post("/v1/messages", json=BODY, headers={"authorization": f"Bearer {key}"})
    )
    await at.upstream.wait_for_calls(seen + 1)
    [(amount,)] = await at.query("SELECT amount FROM holds")
    gate.set()
    assert (await calling).status_code == 200
    at.upstream.script = script
    return int(amount)


async def one(at: Place, round_: Round, kind: str) -> None:
    """One call by its kind, to any replica; how it ended is counted."""
    client = at.rng.choice(at.replicas).client
    headers = {"authorization": f"Bearer {round_.key}"}
    try:
        outcome = await {"message": message, "stream": stream, "task": task}[kind](
            client, headers, at.rng
        )
    except httpx.TransportError as error:
        outcome = f"lost: {error!r}"
    round_.outcomes[f"{kind} {outcome}"] += 1
    round_.outcomes[outcome] += 1


async def message(client: httpx.AsyncClient, headers: Any, rng: random.Random) -> str:
    return told(await client.post("/v1/messages", json=BODY, headers=headers))


async def stream(client: httpx.AsyncClient, headers: Any, rng: random.Random) -> str:
    body = {**BODY, "stream": True}
    async with client.stream("POST", "/v1/messages", json=body, headers=headers) as answer:
        if answer.status_code != 200:
            await answer.aread()
            return told(answer)
        gone = rng.random() < 0.2
        async for _ in answer.aiter_raw():
            if gone:  # a client that leaves in mid-stream
                break
    return "served"


async def task(client: httpx.AsyncClient, headers: Any, rng: random.Random) -> str:
    answer = await client.post("/v1/task", json={"description": "Ask."}, headers=headers)
    if answer.status_code != 200:
        return told(answer)
    status = answer.json()["status"]
    return "served" if status == "completed" else str(status)


def told(answer: httpx.Response) -> str:
    """What an answer means. A refusal says rightly whether to come back."""
    if answer.status_code == 200:
        return "served"
    if answer.status_code == 402:
        assert answer.headers["x-should-retry"] == "false"
        assert answer.json()["error"]["type"] == "billing_error"
        return "refused"
    if answer.status_code == 429:
        told_when = answer.headers.get("retry-after") or answer.headers["x-should-retry"]
        assert told_when
        return "held"
    return f"status {answer.status_code}: {answer.text}"


async def settled(at: Place) -> None:
    """Until nothing is held and no run is unfinished, within a bound."""
    deadline = time.monotonic() + SETTLED_SECONDS
    left: list[Any] = []
    while time.monotonic() < deadline:
        left = await at.query("SELECT call_id, instance_id FROM holds")
        left += await at.query("SELECT id, state FROM runs WHERE state IN ('queued', 'running')")
        if not left:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(left)


async def play(at: Place, observer: Observer, *, kill: bool) -> Round:
    round_ = await begin(at)
    calls = [
        asyncio.ensure_future(one(at, round_, kind))
        for kind, count in CALLS.items()
        for _ in range(count)
    ]
    if kill:
        victim = at.rng.choice(at.replicas)
        # Somewhere in the middle, elsewhere each time: by the calls, since by the clock nothing has
        # been served yet where the machine is busy.
        reached = len(at.upstream.message_calls) + at.rng.randrange(KILL_BEFORE)
        while not all(call.done() for call in calls):
            if len(at.upstream.message_calls) > reached and await at.query("SELECT 1 FROM holds"):
                break
            await asyncio.sleep(0.001)
        await victim.kill()
        await victim.start()
    await asyncio.gather(*calls)
    await settled(at)
    await observer.look()
    return round_


async def books_agree(at: Place, observer: Observer) -> None:
    assert observer.at_work > 5, observer.samples
    assert observer.broken == []
    assert await at.query("SELECT * FROM budgets WHERE held != 0") == []
    database = open_database(at.url)
    proof = await prove(database)
    await database.close()
    assert proof.differences == ()
    assert proof.cost >= served_cost(at.upstream.message_calls)


async def spent_by(at: Place, round_: Round) -> tuple[int, int]:
    """What the round's budget says is spent, and its limit."""
    [(limit, spent)] = await at.query(
        f"SELECT \"limit\", spent FROM budgets WHERE id = '{round_.budget_id}'"
    )
    return spent, limit


@pytest.mark.parametrize("kill", [False, True], ids=["calm", "killed"])
@pytest.mark.parametrize(
    ("kind", "replicas"), [("sqlite", 1), ("sqlite", 3), ("postgresql", 1), ("postgresql", 3)]
)
async def test_spending_never_passes_a_budget(
    tmp_path: Path, postgres_server: PostgresServer, kind: str, replicas: int, *, kill: bool
) -> None:
    async with place(kind, replicas, tmp_path, postgres_server) as at:
        observer, served = Observer(at.query), Counter[str]()
        watching = asyncio.ensure_future(observer.watch())
        for number in range(ROUNDS):
            started = time.monotonic()
            round_ = await play(at, observer, kill=kill)
            spent, limit = await spent_by(at, round_)
            tell(f"{kind} {replicas} {kill=} {number + 1}/{ROUNDS}", round_, started)
            assert served_cost(at.upstream.message_calls[round_.first_call :]) <= spent <= limit
            if not kill:
                assert round_.outcomes["served"] >= PAYS_FOR * 9 // 10, round_.outcomes
                unknown = [each for each in round_.outcomes if "status" in each or "lost" in each]
                said = [replica.output[-3000:] for replica in at.replicas]
                assert unknown == [], (round_.outcomes, said)
            assert observer.broken == []
            served += round_.outcomes
        assert not watching.done(), watching
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await books_agree(at, observer)
        # With few, chance decides which of them come first; a lone server takes its tasks with it.
        if ROUNDS >= 10 and not (kill and replicas == 1):
            assert all(served[f"{each} served"] for each in CALLS), served


def tell(where: str, round_: Round, started: float) -> None:
    """How a round of many went, for who waits for the next."""
    if ROUNDS > 1:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(round_.outcomes.items()))
        seconds = time.monotonic() - started
        print(f"{where}: {seconds:.1f} s: {counts[:600]}", file=sys.__stderr__, flush=True)
