"""kill -9 at each step of a batch that its provider makes: nothing is sent or billed twice."""

import asyncio
import json
import sqlite3
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.batch_upstream import BatchUpstream
from tests.support.server import ServerProcess

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]  # six starts of a server

MODEL = "claude-haiku-4-5"
REQUESTS = 5
HALF_PRICE = 1000  # of 1000 tokens in and 200 out, in micro-dollars
PATIENCE = 120.0

STEPS = {
    "anthropic": (
        ("before", "POST /v1/messages/batches"),
        ("after", "POST /v1/messages/batches"),
        ("before", "GET /v1/messages/batches/ID"),
        ("after", "GET /v1/messages/batches/ID/results"),
        ("after", "DELETE /v1/messages/batches/ID"),
    ),
    "openai": (
        ("after", "POST /v1/files"),
        ("after", "POST /v1/batches"),
        ("after", "GET /v1/files/ID/content"),
        ("before", "DELETE /v1/files/ID"),
    ),
}


class Killer:
    """Kills the server at steps that its provider sees, in turn: before the deed, or after it."""

    def __init__(
        self, upstream: BatchUpstream, server: ServerProcess, steps: Sequence[tuple[str, str]]
    ) -> None:
        self._server = server
        self._steps = list(steps)
        self.down = asyncio.Event()
        upstream.before = partial(self._seen, "before")
        upstream.after = partial(self._seen, "after")

    def _seen(self, when: str, step: str) -> bool:
        if self._steps[:1] != [(when, step)] or self.down.is_set():
            return False
        del self._steps[0]
        self._server.kill_now()
        self.down.set()
        return True


def config(url: str) -> str:
    usual = {"api_key": "sk-1", "batches": "native"}
    return yaml.safe_dump(
        {
            "providers": {
                "claude": {**usual, "type": "anthropic", "base_url": url, "default": True},
                "gpt": {**usual, "type": "openai", "base_url": f"{url}/v1", "prices": "anthropic"},
            },
            "models": {"claude-sonnet-4-5": {"targets": [{"provider": "gpt"}]}},
        }
    )


async def make(server: ServerProcess, vendor: str) -> str:
    if vendor == "anthropic":
        body = {"model": MODEL, "max_tokens": 300, "messages": [{"role": "user", "content": "Hi"}]}
        requests = [{"custom_id": f"r{n}", "params": body} for n in range(REQUESTS)]
        answer = await server.client.post("/v1/messages/batches", json={"requests": requests})
    else:
        body = {
            "model": "claude-sonnet-4-5",
            "max_completion_tokens": 300,
            "messages": [{"role": "user", "content": "Hi"}],
        }
        line = {"method": "POST", "url": "/v1/chat/completions", "body": body}
        lines = [json.dumps({**line, "custom_id": f"r{n}"}) for n in range(REQUESTS)]
        file = await server.client.post(
            "/v1/files", data={"purpose": "batch"}, files={"file": ("in", "\n".join(lines))}
        )
        wanted = {
            "input_file_id": file.json()["id"],
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
        }
        answer = await server.client.post("/v1/batches", json=wanted)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


async def settled(server: ServerProcess, upstream: BatchUpstream, batch_id: str) -> list[Any]:
    """Until every submission has ended; whatever is handed over meanwhile is answered."""
    async with asyncio.timeout(PATIENCE):
        while True:
            upstream.finish()
            answer = await server.client.get(f"/v1/batches/{batch_id}/submissions")
            found: list[Any] = answer.json()["data"]
            over = all(each["state"] == "ended" for each in found)
            if over and any(each["upstream_id"] for each in found):
                return found
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("vendor", STEPS)
async def test_nothing_is_lost_and_nothing_doubled(tmp_path: Path, vendor: str) -> None:
    """One batch, whose server is killed at each step of its way."""
    steps = STEPS[vendor]
    async with BatchUpstream(prompt=True) as upstream:
        (tmp_path / "config.yaml").write_text(config(upstream.url))
        env = {"AGENT": "scripted", "BATCH_POLL_INTERVAL": "200ms", "CONFIG_FILE": "config.yaml"}
        async with ServerProcess(tmp_path, env) as server:
            killer = Killer(upstream, server, steps)
            batch_id = await make(server, vendor)
            for _ in steps:
                async with asyncio.timeout(PATIENCE):
                    await killer.down.wait()
                await server.kill()
                killer.down.clear()
                await server.start()
            await settled(server, upstream, batch_id)
            await server.stop()
        made = [each for each in upstream.batches if each.vendor == vendor]
        # What the provider has done, it has done once.
        assert len(made) == 1
        assert len(made[0].requests) == REQUESTS
        assert upstream.files == {}
    with sqlite3.connect(server.data_dir / "stationmaster.db") as database:
        lines = database.execute("SELECT call_id, cost FROM ledger").fetchall()
        states = database.execute(
            "SELECT state, count(*) FROM batch_requests GROUP BY 1"
        ).fetchall()
        left = database.execute("SELECT count(*) FROM holds").fetchone()
    assert states == [("succeeded", REQUESTS)]
    assert left == (0,)
    billed: dict[str, list[int]] = {}
    for call_id, cost in lines:
        if cost:
            billed.setdefault(call_id.rpartition(":")[0], []).append(cost)
    assert sorted(billed) == sorted(f"{batch_id}:{number}" for number in range(REQUESTS))
    if vendor == "anthropic":
        assert list(billed.values()) == [[HALF_PRICE]] * REQUESTS
    else:
        assert all(len(costs) == 1 for costs in billed.values())


async def test_a_budget_is_kept_over_a_crash(tmp_path: Path) -> None:
    """Holds of a batch outlive its server: nobody settles them at their worst case."""
    async with BatchUpstream() as upstream:
        (tmp_path / "config.yaml").write_text(config(upstream.url))
        env = {"AGENT": "scripted", "BATCH_POLL_INTERVAL": "200ms", "CONFIG_FILE": "config.yaml"}
        async with ServerProcess(tmp_path, env) as server:
            batch_id = await make(server, "anthropic")
            await upstream.taken.wait()
            await server.kill()
            await server.start()
            # It asks for the batch again: by now it has taken over what its predecessor left.
            asked = len(upstream.asked)
            async with asyncio.timeout(PATIENCE):
                while len(upstream.asked) < asked + 5:
                    await asyncio.sleep(0.05)
            with sqlite3.connect(server.data_dir / "stationmaster.db") as database:
                held = database.execute("SELECT count(*) FROM holds").fetchone()
                spent = database.execute("SELECT count(*) FROM ledger").fetchone()
            assert (held, spent) == ((REQUESTS,), (0,))
            await settled(server, upstream, batch_id)
            await server.stop()
        with sqlite3.connect(server.data_dir / "stationmaster.db") as database:
            costs = [row[0] for row in database.execute("SELECT cost FROM ledger")]
        assert costs == [HALF_PRICE] * REQUESTS
