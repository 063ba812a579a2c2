"""kill -9 in the middle: what was done is on record, what is on record was done."""

import asyncio
import sqlite3
from pathlib import Path

import httpx
import pytest

from stationmaster.bootstrap.offline import vault
from stationmaster.settings import Settings
from tests.support.server import ServerProcess

pytestmark = pytest.mark.acceptance

SECRET = "a-secret-for-hashes-of-tests"


async def make_keys(server: ServerProcess, started: asyncio.Event, acknowledged: list[str]) -> None:
    while True:
        try:
            answer = await server.client.post("/api/admin/keys", json={"name": "another"})
        except httpx.TransportError:
            return
        if answer.status_code == 201:
            acknowledged.append(answer.json()["id"])
            started.set()


async def test_keys_and_their_entries_agree_after_every_crash(tmp_path: Path) -> None:
    env = {
        "AGENT": "scripted",
        "SECRET_KEY": SECRET,
        "RATE_LIMIT_ENABLED": "false",
        "LOG_LEVEL": "warning",
    }
    acknowledged: list[str] = []
    async with ServerProcess(tmp_path, env) as server:
        for _ in range(3):
            started = asyncio.Event()
            makers = [
                asyncio.create_task(make_keys(server, started, acknowledged)) for _ in range(8)
            ]
            await started.wait()
            before = len(acknowledged)
            while len(acknowledged) < before + 30:
                await asyncio.sleep(0.01)
            await server.kill()
            await asyncio.gather(*makers)
            await server.start()
        await server.stop()
    with sqlite3.connect(server.data_dir / "stationmaster.db") as database:
        made = {
            row[0] for row in database.execute("SELECT id FROM api_keys WHERE name = 'another'")
        }
        told = [
            row[0]
            for row in database.execute(
                "SELECT target FROM audit_entries WHERE action = 'key.create'"
            )
        ]
    assert set(acknowledged) <= made
    assert sorted(told) == sorted(made)
    settings = Settings.load({"DATA_DIR": str(server.data_dir), "SECRET_KEY": SECRET}, cwd=tmp_path)
    async with vault(settings) as opened:
        verdicts = await opened.chains.verify()
    assert [verdict.faults for verdict in verdicts] == [()]
